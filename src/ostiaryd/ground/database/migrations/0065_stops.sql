create table stop (
    what text not null,
    value text not null,
    since bigint not null,
    said_by text,
    why text not null,
    incident text,
    primary key (what, value)
) {keyed};
create table awaiting (
    agent text primary key,
    incident text not null
) {keyed};
create index agent_model on agent (model) where model <> '';
