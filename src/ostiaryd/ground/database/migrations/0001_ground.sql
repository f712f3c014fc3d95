create table setting (
    name text primary key,
    value text not null
) {keyed};
create table server_key (
    kid text primary key,
    use_ text not null,
    alg text not null,
    state text not null,
    public_jwk text not null,
    sealed bytea not null,
    created_at bigint not null,
    retired_at bigint
) {keyed};
create table outbox (
    seq bigint primary key,
    topic text not null,
    body bytea not null,
    at bigint not null
) {strict};
create index outbox_topic on outbox (topic, seq);
