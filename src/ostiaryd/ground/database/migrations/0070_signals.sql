create table ssf_stream (
    stream_id text primary key,
    receiver text not null,
    description text not null,
    requested text,
    method text not null,
    endpoint text not null,
    sealed bytea,
    status text not null,
    reason text not null,
    created_at bigint not null,
    settled_to bigint not null,
    beyond text not null,
    last bigint,
    verified_at bigint not null,
    attempts bigint not null,
    due_at bigint not null,
    busy_until bigint not null,
    delivered bigint not null,
    delivered_at bigint,
    lost bigint not null,
    failed text not null
) {keyed};
create index ssf_stream_receiver on ssf_stream (receiver, stream_id);
create table ssf_removed (
    stream text not null references ssf_stream on delete cascade,
    subject bytea not null,
    primary key (stream, subject)
) {keyed};
create table ssf_level (
    agent text primary key,
    level text not null
) {keyed};
create table ssf_mark (
    id bigint primary key,
    seq bigint not null
) {keyed};
