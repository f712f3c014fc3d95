alter table task add column elevated text not null default '';
create index task_elevated on task (agent, task_id) where elevated <> '';
create table eligible (
    agent text primary key references agent,
    scopes text not null
) {keyed};
create table elevation (
    task text primary key references task,
    is_break_glass bigint not null,
    approval text,
    granted_at bigint not null
) {keyed};
