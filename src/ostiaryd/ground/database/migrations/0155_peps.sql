create table pep (
    id text primary key,
    name text not null unique,
    networks text not null,
    created_at bigint not null,
    revoked_at bigint
) {keyed};
create table pep_key (
    id text primary key,
    pep text not null,
    digest bytea not null,
    created_at bigint not null,
    expires_at bigint not null,
    used_at bigint
) {keyed};
create unique index pep_key_digest on pep_key (digest);
create index pep_key_pep on pep_key (pep);
