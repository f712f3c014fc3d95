alter table authority add column active_from bigint;
create index certificate_authority on certificate (authority, not_after);
drop index authority_active;
create unique index authority_active on authority (kind) where state = 'active' and kind in ('root', 'intermediate');
