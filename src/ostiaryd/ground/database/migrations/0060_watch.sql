create table risk (
    subject text primary key,
    millis bigint not null,
    at bigint not null
) {keyed};
create index risk_at on risk (at);
create table finding (
    finding_id text primary key,
    at bigint not null,
    detector text not null,
    points bigint not null,
    says text not null,
    agent text not null,
    task text,
    owner text,
    entries text not null,
    incident text
) {keyed};
create index finding_agent on finding (agent, at);
create index finding_task on finding (task, at) where task is not null;
create index finding_incident on finding (incident) where incident is not null;
create index finding_loose on finding (at) where incident is null;
