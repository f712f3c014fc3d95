alter table secret_rotation add column claimed_until bigint not null default 0;
