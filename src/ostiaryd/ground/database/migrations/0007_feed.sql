alter table holding add column audience text;
create table spool (
    id text primary key,
    resource_id text not null references resource,
    next_number bigint not null,
    reported_at bigint not null
) {keyed};
create index spool_resource on spool (resource_id, reported_at);
