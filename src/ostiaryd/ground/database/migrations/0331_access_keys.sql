create table access_key (
    id text primary key,
    agent text not null,
    network text not null,
    wrapped_key bytea not null,
    sealed bytea not null,
    created_at bigint not null,
    expires_at bigint not null
) {keyed};
create index access_key_agent on access_key (agent);
create index access_key_expiry on access_key (expires_at);
