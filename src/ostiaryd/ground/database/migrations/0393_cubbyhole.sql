create table cubbyhole_value (
    holding text not null,
    path bytea not null,
    expires_at bigint not null,
    wrapped_key bytea not null,
    sealed bytea not null,
    primary key (holding, path)
) {keyed};
create index cubbyhole_value_expiry on cubbyhole_value (expires_at);
