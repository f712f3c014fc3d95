create table secret_database (
    name text primary key,
    config text not null,
    wrapped_key bytea not null,
    sealed bytea not null,
    pending_key bytea,
    pending bytea,
    updated_at bigint not null
) {keyed};
create table secret_role (
    name text primary key,
    database text not null,
    role text not null,
    updated_at bigint not null
) {keyed};
create index secret_role_database on secret_role (database);
create table static_role (
    name text primary key,
    database text not null,
    role text not null,
    wrapped_key bytea,
    sealed bytea,
    pending_key bytea,
    pending bytea,
    rotated_at bigint,
    due_at bigint not null,
    attempts bigint not null,
    error text not null
) {keyed};
create index static_role_database on static_role (database);
create index static_role_due on static_role (due_at);
create table lease (
    lease_id text primary key,
    holding text not null,
    agent text not null,
    task text not null,
    database text not null,
    role text not null,
    username text not null,
    statements text not null,
    state text not null,
    issued_at bigint not null,
    renewed_at bigint,
    expires_at bigint not null,
    max_at bigint not null,
    due_at bigint not null,
    attempts bigint not null,
    error text not null
) {keyed};
create unique index lease_holding on lease (holding);
create index lease_agent on lease (agent);
create index lease_role on lease (role, lease_id);
create index lease_database on lease (database);
create index lease_expiry on lease (expires_at) where state = 'live';
create index lease_due on lease (due_at) where state <> 'live';
create index holding_ended_lease on holding (ended_at) where kind = 'lease' and ended_at is not null;
