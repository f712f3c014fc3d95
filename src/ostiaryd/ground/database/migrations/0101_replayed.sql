create table replayed (
    kind text not null,
    subject text not null,
    seen_at bigint not null,
    source text not null,
    at bigint not null,
    primary key (kind, subject)
) {keyed};
