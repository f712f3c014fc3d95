create table pki_issuer (
    issuer_id text primary key,
    mount text not null,
    name text not null,
    key_type text not null,
    key_digest text not null,
    certificate bytea not null,
    wrapped_key bytea,
    sealed bytea,
    created_at bigint not null,
    revoked_at bigint
) {keyed};
create index pki_issuer_mount on pki_issuer (mount, created_at);
create table pki_role (
    mount text not null,
    name text not null,
    settings text not null,
    primary key (mount, name)
) {keyed};
create table pki_settings (
    mount text primary key,
    settings text not null
) {keyed};
create table pki_certificate (
    serial text primary key,
    mount text not null,
    issuer text not null,
    lease text,
    agent text,
    task text,
    der bytea not null,
    not_after bigint not null,
    issued_at bigint not null,
    revoked_at bigint
) {keyed};
create index pki_certificate_mount on pki_certificate (mount, serial);
create index pki_certificate_issuer on pki_certificate (issuer, serial);
create index pki_certificate_agent on pki_certificate (agent, serial);
create index pki_certificate_expiry on pki_certificate (not_after);
create unique index pki_certificate_lease on pki_certificate (lease) where lease is not null;
create index holding_ended_mount_certificate on holding (ended_at)
    where kind = 'mount_certificate' and ended_at is not null;
