create table client_secret (
    id text primary key,
    agent text not null,
    digest text not null,
    created_at bigint not null,
    expires_at bigint not null
) {keyed};
create index client_secret_agent on client_secret (agent);
