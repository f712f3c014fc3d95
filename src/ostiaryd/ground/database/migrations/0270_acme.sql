create table acme_key (
    kid text primary key,
    holder text not null,
    profile text not null,
    names text not null,
    sealed bytea not null,
    created_at bigint not null,
    expires_at bigint not null,
    account text,
    revoked_at bigint
) {keyed};
create index acme_key_holder on acme_key (holder);
create table acme_account (
    id text primary key,
    jkt text not null unique,
    jwk text not null,
    holder text not null,
    kid text not null,
    contacts text not null,
    status text not null,
    created_at bigint not null
) {keyed};
create table acme_order (
    id text primary key,
    account text not null,
    status text not null,
    identifiers text not null,
    not_after bigint,
    replaces text,
    created_at bigint not null,
    expires_at bigint not null,
    problem text,
    serial text
) {keyed};
create index acme_order_account on acme_order (account, id);
create index acme_order_serial on acme_order (account, serial) where serial is not null;
create index acme_order_replaces on acme_order (replaces) where replaces is not null;
create index acme_order_expires on acme_order (expires_at);
create table acme_authorization (
    id text primary key,
    order_id text not null,
    account text not null,
    name text not null,
    status text not null,
    expires_at bigint not null,
    token text not null,
    challenge text not null,
    problem text,
    validated_at bigint,
    attempts bigint not null,
    due_at bigint not null,
    busy_until bigint not null
) {keyed};
create index acme_authorization_order on acme_authorization (order_id);
create index acme_authorization_valid on acme_authorization (account, name) where status = 'valid';
create index acme_authorization_due on acme_authorization (due_at) where status = 'processing';
