create table login_provider (
    provider_id text primary key,
    name text not null unique,
    issuer text not null unique,
    settings text not null,
    sealed bytea,
    created_at bigint not null
) {keyed};
create table login_identity (
    issuer text not null,
    sub text not null,
    person text not null references person,
    linked_at bigint not null,
    primary key (issuer, sub)
) {keyed};
create index login_identity_person on login_identity (person);
