create table writer_commit (
    connection text primary key,
    number bigint not null,
    at bigint not null
) {keyed};
