alter table clock add column until bigint not null default 0;
