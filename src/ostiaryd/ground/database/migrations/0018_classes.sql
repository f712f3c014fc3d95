create table entry_class (
    data_class text not null,
    idx bigint not null,
    primary key (data_class, idx)
) {keyed};
