create table trust_anchor (
    digest text primary key,
    name text not null unique,
    certificate text not null,
    is_own integer not null,
    added_at bigint not null
) {keyed};
create table certificate_client (
    client text primary key,
    method text not null,
    kind text not null,
    value text not null,
    is_bound integer not null,
    since bigint not null
) {keyed};
create table client_certificate (
    client text not null,
    digest text not null,
    certificate text not null,
    added_at bigint not null,
    primary key (client, digest)
) {keyed};
