create table person (
    person_id text primary key,
    name text not null unique,
    email text,
    deputy text references person,
    state text not null,
    created_at bigint not null
) {keyed};
create table team (
    team_id text primary key,
    name text not null unique,
    deputy text references person,
    created_at bigint not null
) {keyed};
create table member (
    team text not null references team,
    person text not null references person,
    primary key (team, person)
) {keyed};
create index member_person on member (person);
create table agent (
    agent_id text primary key,
    name text not null unique,
    owner text not null,
    deputy text references person,
    purpose text not null,
    kind text not null,
    provider text not null,
    model text not null,
    risk_tier text not null,
    segment text not null,
    scopes text not null,
    state text not null,
    epoch bigint not null,
    changed_at bigint not null,
    created_at bigint not null,
    expires_at bigint
) {keyed};
create index agent_owner on agent (owner, agent_id);
create index agent_expiry on agent (expires_at) where state in ('pending', 'active');
create index agent_raised on agent (changed_at) where epoch > 0;
create table agent_key (
    jkt text primary key,
    agent text not null references agent,
    alg text not null,
    jwk text not null,
    added_at bigint not null,
    not_after bigint,
    revoked_at bigint
) {keyed};
create index agent_key_agent on agent_key (agent, added_at);
create index agent_key_expiry on agent_key (not_after) where revoked_at is null;
create index agent_key_revoked on agent_key (revoked_at) where revoked_at is not null;
create table resource (
    resource_id text primary key,
    name text not null unique,
    uri text not null unique,
    mode text not null,
    segment text not null,
    jkt text unique,
    jwk text,
    catalogue text,
    catalogue_hash text,
    catalogue_version bigint not null,
    created_at bigint not null
) {keyed};
create table holding (
    id text primary key,
    kind text not null,
    agent text not null,
    task text,
    parent text,
    jkt text,
    client_jkt text,
    expires_at bigint not null,
    ended_at bigint,
    ended_why text
) {keyed};
create index holding_agent on holding (agent, expires_at);
create index holding_task on holding (task, expires_at) where task <> 'tk_' || substr(agent, 4);
create index holding_parent on holding (parent) where parent is not null;
create index holding_jkt on holding (jkt, expires_at);
create index holding_client_jkt on holding (client_jkt, expires_at) where jkt is null or jkt <> client_jkt;
create index holding_expiry on holding (expires_at);
create index holding_ended on holding (ended_at) where ended_at is not null;
