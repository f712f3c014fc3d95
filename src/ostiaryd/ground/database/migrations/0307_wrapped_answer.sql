create table wrapped_answer (
    digest bytea primary key,
    holding text not null,
    accessor text not null,
    agent text not null,
    path text not null,
    seconds bigint not null,
    created_at bigint not null,
    expires_at bigint not null,
    wrapped_key bytea not null,
    sealed bytea not null
) {keyed};
create index wrapped_answer_agent on wrapped_answer (agent);
create index wrapped_answer_expiry on wrapped_answer (expires_at);
