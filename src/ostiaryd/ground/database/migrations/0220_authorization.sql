create table authorization_request (
    reference text primary key,
    client_id text not null,
    request text not null,
    network text not null,
    created_at bigint not null,
    expires_at bigint not null,
    used_at bigint
) {keyed};
create index authorization_request_network on authorization_request (network, expires_at);
create index authorization_request_end on authorization_request (expires_at);
create table client_agent (
    client_id text not null,
    person text not null,
    agent text not null unique,
    primary key (client_id, person)
) {keyed};
create table consent (
    consent_id text primary key,
    client_id text not null,
    client_name text not null,
    person text not null,
    agent text not null,
    resource text not null,
    scopes text not null,
    details text not null,
    digest text not null,
    granted_at bigint not null,
    expires_at bigint not null,
    ended_at bigint,
    ended_why text not null
) {keyed};
create unique index consent_live on consent (person, client_id, resource) where ended_at is null;
create index consent_agent on consent (agent);
create table authorization_code (
    code text primary key,
    consent text not null,
    session text not null,
    request text not null,
    acr text not null,
    amr text not null,
    authenticated_at bigint not null,
    created_at bigint not null,
    expires_at bigint not null,
    used_at bigint,
    grant_id text
) {keyed};
create index authorization_code_end on authorization_code (expires_at);
create table oauth_grant (
    grant_id text primary key,
    consent text not null,
    client_id text not null,
    agent text not null,
    person text not null,
    session text not null,
    task text not null,
    request text not null,
    acr text not null,
    amr text not null,
    authenticated_at bigint not null,
    jkt text not null,
    is_offline bigint not null,
    sequence bigint not null,
    rotated_at bigint not null,
    created_at bigint not null,
    expires_at bigint not null
) {keyed};
create index oauth_grant_consent on oauth_grant (consent);
create index oauth_grant_session on oauth_grant (session);
create index oauth_grant_end on oauth_grant (expires_at);
create table device (
    device text primary key,
    user_code text not null unique,
    client_id text not null,
    request text not null,
    interval_s bigint not null,
    expires_at bigint not null,
    polled_at bigint not null,
    answered_at bigint,
    code text
) {keyed};
create index device_end on device (expires_at);
create table logout_token (
    id text primary key,
    client_id text not null,
    uri text not null,
    person text not null,
    session text not null,
    attempts bigint not null,
    next_at bigint not null,
    expires_at bigint not null
) {keyed};
create index logout_token_due on logout_token (next_at);
