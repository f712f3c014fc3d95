create table ssf_issuer (
    issuer_id text primary key,
    issuer text not null unique,
    audience text not null,
    jwks_uri text not null,
    method text not null,
    endpoint text not null,
    secret_digest bytea,
    sealed bytea,
    domains text not null,
    names_agents bigint not null,
    critical text not null,
    stream text not null,
    configuration_endpoint text not null,
    verification_endpoint text not null,
    state text,
    verified_at bigint,
    trouble text not null,
    created_at bigint not null,
    heard bigint not null,
    heard_at bigint,
    attempts bigint not null,
    due_at bigint not null,
    busy_until bigint not null
) {keyed};
create table ssf_identity (
    issuer text not null references ssf_issuer,
    sub text not null,
    person text not null references person,
    primary key (issuer, sub)
) {keyed};
create index ssf_identity_person on ssf_identity (person);
create table ssf_seen (
    digest bytea primary key,
    until bigint not null
) {strict};
create index ssf_seen_until on ssf_seen (until);
create index person_email on person (lower(email)) where email is not null;
