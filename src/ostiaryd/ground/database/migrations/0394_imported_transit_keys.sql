alter table transit_key add column is_imported bigint not null default 0;
alter table transit_key add column allows_rotation bigint not null default 0;
