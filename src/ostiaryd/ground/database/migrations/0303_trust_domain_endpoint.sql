alter table trust_domain add column endpoint_spiffe_id text not null default '';
