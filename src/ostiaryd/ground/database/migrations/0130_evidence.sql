create table evidence (
    idx bigint primary key,
    proof text not null
) {strict};
create table evidence_used (
    digest bytea primary key,
    idx bigint not null,
    until bigint not null
) {keyed};
create index evidence_used_until on evidence_used (until);
create table guard_claim (
    agent text not null,
    resource text not null,
    millis bigint not null,
    at bigint not null,
    primary key (agent, resource)
) {keyed};
create index guard_claim_at on guard_claim (at);
alter table holding add column ath text;
alter table finding add column is_proved bigint not null default 1;
