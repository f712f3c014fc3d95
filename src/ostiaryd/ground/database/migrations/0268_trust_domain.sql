create table trust_domain (
    name text primary key,
    bundle_url text not null,
    sequence text,
    content bytea,
    refreshed_at bigint,
    due_at bigint not null,
    failed text not null,
    created_at bigint not null
) {keyed};
create table trust_domain_agent (
    trust_domain text not null references trust_domain,
    agent text not null references agent,
    primary key (trust_domain, agent)
) {keyed};
create index trust_domain_agent_agent on trust_domain_agent (agent);
