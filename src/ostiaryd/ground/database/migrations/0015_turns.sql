alter table spool add column turn bigint not null default 0;
