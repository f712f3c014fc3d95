create table account_provider (
    name text primary key,
    settings text not null,
    wrapped_key bytea,
    sealed bytea,
    added_at bigint not null,
    removed_at bigint
) {keyed};
create table connected_account (
    account_id text primary key,
    provider text not null references account_provider,
    person text not null references person,
    scopes text not null,
    state text not null,
    wrapped_key bytea not null,
    sealed bytea not null,
    token_key bytea not null,
    token bytea not null,
    token_expires_at bigint not null,
    rotation bigint not null,
    connected_at bigint not null,
    refreshed_at bigint not null,
    claimed_until bigint not null,
    due_at bigint not null,
    attempts bigint not null,
    error text not null
) {keyed};
create unique index connected_account_person on connected_account (person, provider);
create index connected_account_provider on connected_account (provider);
create index connected_account_due on connected_account (due_at) where state = 'ending';
create table account_token (
    lease_id text primary key,
    account text not null,
    scopes text not null,
    wrapped_key bytea,
    sealed bytea,
    expires_at bigint not null
) {keyed};
create index account_token_account on account_token (account);
create index person_logins_since on person (logins_since) where logins_since > 0;
