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
create index entry_at on entry (at, idx);
create index entry_agent on entry (agent, idx) where agent is not null;
create index entry_task on entry (task, idx) where task is not null;
create index entry_person on entry (person, idx) where person is not null;
create index entry_resource on entry (resource, idx) where resource is not null;
create index entry_action on entry (action, idx);
create index entry_outcome on entry (outcome, idx) where outcome <> 'ok';
