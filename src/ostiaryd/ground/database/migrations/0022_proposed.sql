alter table resource add column proposed bigint not null default 0;
