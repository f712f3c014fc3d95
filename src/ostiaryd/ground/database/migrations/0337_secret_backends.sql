create table secret_backend (
    name text primary key,
    config text not null,
    wrapped_key bytea not null,
    sealed bytea not null,
    updated_at bigint not null
) {keyed};
