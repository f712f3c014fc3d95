alter table transit_key add column is_derived bigint not null default 0;
alter table transit_key add column is_convergent bigint not null default 0;
