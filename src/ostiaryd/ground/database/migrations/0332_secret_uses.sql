alter table secret add column is_canary bigint not null default 0;
alter table secret add column read_at bigint;
alter table secret add column reader text;
