alter table incident_act add column is_ordered bigint not null default 0;
