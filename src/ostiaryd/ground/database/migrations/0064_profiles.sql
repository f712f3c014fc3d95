create table profile (
    agent text not null references agent,
    resource_id text not null,
    packed bytea not null,
    learned_at bigint not null,
    told_at bigint not null,
    primary key (agent, resource_id)
) {keyed};
create index profile_resource on profile (resource_id, learned_at);
create index profile_learned on profile (learned_at);
