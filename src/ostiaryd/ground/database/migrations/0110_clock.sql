create table clock (
    boot_id text primary key,
    boot bigint not null,
    time bigint not null,
    speed bigint not null,
    used bigint not null
) {keyed};
alter table log_head add column at bigint not null default 0;
update log_head set at = coalesce((select max(at) from entry), 0);
