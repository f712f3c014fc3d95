create table history (
    holder text not null,
    day bigint not null,
    seq bigint not null,
    body bytea not null,
    primary key (holder, day)
) {keyed};
