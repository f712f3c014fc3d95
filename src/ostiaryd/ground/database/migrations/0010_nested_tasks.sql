alter table task add column parent text;
alter table task add column depth bigint not null default 0;
create index task_parent on task (parent) where parent is not null;
alter table agent add column max_depth bigint not null default 3;
