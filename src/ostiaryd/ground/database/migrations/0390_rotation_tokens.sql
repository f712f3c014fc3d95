alter table secret_rotation add column token text not null default '';
