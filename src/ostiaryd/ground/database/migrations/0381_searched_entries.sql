alter table log_head add column searched_from bigint not null default 0;
update log_head set searched_from = coalesce((select min(idx) from entry_about), size);
