alter table certificate add column replaces text;
alter table certificate add column failed_renewals bigint not null default 0;
alter table certificate add column warned_at bigint;
create index certificate_failed on certificate (serial) where failed_renewals > 0;
