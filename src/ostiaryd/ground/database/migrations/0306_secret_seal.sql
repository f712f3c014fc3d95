create table secret_wrapping_key (
    number bigint primary key,
    state text not null,
    sealed bytea not null,
    created_at bigint not null
) {keyed};
create table secret_seal (
    id bigint primary key,
    public_key bytea not null,
    sealed_at bigint
) {keyed};
