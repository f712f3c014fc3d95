create table pep (
    id text primary key,
    name text not null unique,
    networks text not null,
    created_at bigint not null,
    revoked_at bigint
) {keyed};
create table pep_key (
    digest bytea primary key,
    pep text not null,
    created_at bigint not null,
    expires_at bigint not null,
    used_at bigint
) {keyed};
create index pep_key_pep on pep_key (pep);
