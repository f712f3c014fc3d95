create table replay (
    digest bytea primary key,
    until bigint not null
) {keyed};
create table join_token (
    digest bytea primary key,
    agent text not null,
    created_at bigint not null,
    expires_at bigint not null,
    used_at bigint
) {keyed};
create index join_token_agent on join_token (agent);
create table bearer_client (
    agent text primary key,
    since bigint not null
) {keyed};
