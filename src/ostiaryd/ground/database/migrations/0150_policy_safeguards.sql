alter table policy_set add column safeguards bigint not null default 0;
