alter table authority add column revoked_at bigint;
alter table authority add column reason text;
