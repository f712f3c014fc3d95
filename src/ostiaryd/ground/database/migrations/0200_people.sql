alter table person add column logins_since bigint not null default 0;
create table person_session (
    id text primary key,
    digest bytea not null,
    person text not null references person,
    proofs text not null,
    network text not null,
    browser text not null,
    created_at bigint not null,
    used_at bigint not null,
    idle_until bigint not null,
    expires_at bigint not null,
    ended_at bigint
) {keyed};
create unique index person_session_digest on person_session (digest);
create index person_session_person on person_session (person);
create index person_session_expires on person_session (expires_at);
create table person_password (
    person text primary key references person,
    hash text not null,
    set_at bigint not null
) {keyed};
create table person_totp (
    person text primary key references person,
    sealed bytea not null,
    set_at bigint not null,
    last_step bigint not null
) {keyed};
create table person_passkey (
    id text primary key,
    person text not null references person,
    name text not null,
    public_key bytea not null,
    sign_count bigint not null,
    transports text not null,
    added_at bigint not null,
    used_at bigint
) {keyed};
create index person_passkey_person on person_passkey (person);
create table recovery_code (
    digest bytea primary key,
    person text not null references person,
    made_at bigint not null
) {keyed};
create index recovery_code_person on recovery_code (person);
create table setup_link (
    digest bytea primary key,
    person text not null references person,
    created_at bigint not null,
    expires_at bigint not null
) {keyed};
create index setup_link_person on setup_link (person);
create table login_throttle (
    slot text primary key,
    failures bigint not null,
    failed_at bigint not null
) {keyed};
