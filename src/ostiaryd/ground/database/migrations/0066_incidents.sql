create table incident (
    incident_id text primary key,
    agent text not null,
    owner text not null,
    state text not null,
    opened_at bigint not null,
    heard_at bigint not null,
    risk bigint not null,
    says text not null,
    person text,
    why text,
    closed_at bigint
) {keyed};
create unique index incident_waiting on incident (agent) where closed_at is null;
create index incident_closed on incident (closed_at) where closed_at is not null;
create table incident_act (
    incident text not null,
    number bigint not null,
    at bigint not null,
    response text not null,
    outcome text not null,
    agent text not null,
    task text,
    policies text not null,
    says text not null,
    primary key (incident, number)
) {keyed};
create index incident_act_at on incident_act (at);
create table fleet (
    id bigint primary key,
    agents bigint not null,
    counted_at bigint not null
) {keyed};
