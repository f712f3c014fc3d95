alter table authority add column hsm_key text;
