create table entry_about (
    subject text not null,
    idx bigint not null,
    primary key (subject, idx)
) {keyed};
