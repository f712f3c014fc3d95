create table secret (
    mount text not null,
    path bytea not null,
    current_version bigint not null,
    oldest_version bigint not null,
    max_versions bigint not null,
    cas_required bigint not null,
    delete_after bigint not null,
    custom text not null,
    created_at bigint not null,
    updated_at bigint not null,
    primary key (mount, path)
) {keyed};
create table secret_version (
    mount text not null,
    path bytea not null,
    version bigint not null,
    wrapped_key bytea,
    sealed bytea,
    created_at bigint not null,
    deleted_at bigint,
    primary key (mount, path, version)
) {keyed};
create table secret_mount (
    mount text primary key,
    max_versions bigint not null,
    cas_required bigint not null,
    delete_after bigint not null
) {keyed};
create table vault_token (
    digest bytea primary key,
    holding text not null,
    accessor text not null,
    network text not null,
    seconds bigint not null,
    created_at bigint not null,
    renewed_at bigint not null,
    expires_at bigint not null,
    source text not null,
    acr text not null,
    scopes text not null,
    details text not null
) {keyed};
create unique index vault_token_accessor on vault_token (accessor);
create index vault_token_expiry on vault_token (expires_at);
