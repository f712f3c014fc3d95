create table trust_bundle (
    trust_domain text primary key,
    sequence text not null,
    content bytea not null,
    changed_at bigint not null
) {keyed};
