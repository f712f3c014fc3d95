create table approved (
    approval_id text primary key,
    digest text not null,
    policies text not null,
    spent_at bigint,
    spent_for text
) {keyed};
create table approval (
    approval_id text primary key,
    kind text not null,
    agent text not null,
    task text not null,
    digest text not null,
    needs text not null,
    state text not null,
    asked text not null,
    times bigint not null,
    asked_at bigint not null,
    last_at bigint not null,
    ends_at bigint not null,
    answered_at bigint
) {keyed};
create index approval_digest on approval (digest, asked_at);
create index approval_due on approval (ends_at) where state = 'open';
create index approval_agent on approval (agent, asked_at);
create index approval_task on approval (task, asked_at);
create table approval_answer (
    approval_id text not null references approval,
    person text not null references person,
    says text not null,
    reason text not null,
    jkt text,
    at bigint not null,
    primary key (approval_id, person)
) {keyed};
