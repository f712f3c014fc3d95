alter table transit_key add column auto_rotate_s bigint not null default 0;
alter table transit_key add column rotates_at bigint;
create index transit_key_rotates on transit_key (rotates_at) where rotates_at is not null;
