create table svid_key (
    kid text primary key,
    sealed bytea not null,
    created_at bigint not null,
    signs_at bigint not null
) {keyed};
