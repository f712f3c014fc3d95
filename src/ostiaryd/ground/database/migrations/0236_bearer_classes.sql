create table bearer_class (
    resource text not null references resource,
    registration text not null,
    since bigint not null,
    primary key (resource, registration)
) {keyed};
create index holding_unbound on holding (audience) where jkt is null and ended_at is null;
