create table entry (
    idx bigint primary key,
    leaf bytea not null,
    body bytea not null,
    at bigint not null,
    action text not null,
    outcome text not null,
    agent text,
    task text,
    person text,
    resource text
) {strict};
create table subtree (
    level bigint not null,
    idx bigint not null,
    hash bytea not null,
    primary key (level, idx)
) {keyed};
create table log_head (
    id bigint primary key,
    size bigint not null,
    peaks bytea not null,
    checkpoint text not null
) {strict};
