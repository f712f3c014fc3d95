create table vault_mount (
    path text primary key,
    type text not null,
    version text not null,
    description text not null,
    default_ttl bigint not null,
    max_ttl bigint not null,
    accessor text not null,
    created_at bigint not null
) {keyed};
create table vault_policy (
    name text primary key,
    text text not null,
    created_at bigint not null,
    updated_at bigint not null
) {keyed};
