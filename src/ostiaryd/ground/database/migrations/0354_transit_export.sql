alter table transit_key add column min_available_version bigint not null default 0;
alter table transit_key add column is_exportable bigint not null default 0;
alter table transit_key add column allows_backup bigint not null default 0;
