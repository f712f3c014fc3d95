create table transit_key (
    name text primary key,
    kind text not null,
    latest_version bigint not null,
    min_decryption_version bigint not null,
    min_encryption_version bigint not null,
    deletion_allowed bigint not null,
    created_at bigint not null
) {keyed};
create table transit_key_version (
    name text not null,
    version bigint not null,
    wrapped_key bytea not null,
    sealed bytea not null,
    created_at bigint not null,
    primary key (name, version)
) {keyed};
