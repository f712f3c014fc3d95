create table authority (
    authority_id text primary key,
    kind text not null,
    state text not null,
    parent text,
    subject text not null,
    key_type text not null,
    certificate bytea not null,
    cross_certificate bytea,
    sealed bytea,
    permitted text not null,
    not_before bigint not null,
    not_after bigint not null,
    created_at bigint not null,
    retired_at bigint
) {keyed};
create unique index authority_active on authority (kind) where state = 'active' and kind <> 'responder';
create table certificate (
    serial text primary key,
    authority text not null,
    profile text not null,
    holder text,
    task text,
    names text not null,
    key_type text not null,
    key_digest text not null,
    der bytea not null,
    not_before bigint not null,
    not_after bigint not null,
    issued_at bigint not null,
    revoked_at bigint,
    reason text
) {keyed};
create index certificate_holder on certificate (holder, serial);
create index certificate_key on certificate (key_digest);
create index certificate_expiry on certificate (not_after);
create index certificate_revoked on certificate (revoked_at) where revoked_at is not null;
create table blocked_key (
    digest text primary key,
    reason text not null,
    blocked_at bigint not null
) {keyed};
create index holding_ended_certificate on holding (ended_at) where kind = 'certificate' and ended_at is not null;
