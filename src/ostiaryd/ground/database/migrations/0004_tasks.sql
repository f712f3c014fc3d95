create table task (
    task_id text primary key,
    agent text not null references agent,
    person text references person,
    purpose text not null,
    scopes text not null,
    bounds text not null,
    state text not null,
    created_at bigint not null,
    expires_at bigint not null,
    ended_at bigint
) {keyed};
create index task_agent on task (agent, task_id);
create index task_live on task (agent) where state = 'live';
create index task_person on task (person) where state = 'live';
create index task_expiry on task (expires_at) where state = 'live';
create index task_ended on task (ended_at) where ended_at is not null;
