create table certificate_by_rowid (
    serial text not null primary key,
    authority text not null,
    profile text not null,
    holder text,
    task text,
    names text not null,
    key_type text not null,
    key_digest text not null,
    not_before bigint not null,
    not_after bigint not null,
    issued_at bigint not null,
    revoked_at bigint,
    reason text,
    replaces text,
    failed_renewals bigint not null default 0,
    warned_at bigint,
    der bytea not null
) {strict};
insert into certificate_by_rowid (serial, authority, profile, holder, task, names, key_type, key_digest, not_before,
    not_after, issued_at, revoked_at, reason, replaces, failed_renewals, warned_at, der)
    select serial, authority, profile, holder, task, names, key_type, key_digest, not_before, not_after, issued_at,
        revoked_at, reason, replaces, failed_renewals, warned_at, der from certificate order by serial;
drop table certificate;
alter table certificate_by_rowid rename to certificate;
create index certificate_holder on certificate (holder, serial);
create index certificate_expiry on certificate (not_after);
create index certificate_revoked on certificate (revoked_at) where revoked_at is not null;
create index certificate_authority on certificate (authority, not_after);
create index certificate_failed on certificate (serial) where failed_renewals > 0;
create index certificate_key_holder on certificate (key_digest, coalesce(holder, ''));
create table pki_certificate_by_rowid (
    serial text not null primary key,
    mount text not null,
    issuer text not null,
    lease text,
    agent text,
    task text,
    not_after bigint not null,
    issued_at bigint not null,
    revoked_at bigint,
    der bytea not null
) {strict};
insert into pki_certificate_by_rowid (serial, mount, issuer, lease, agent, task, not_after, issued_at, revoked_at, der)
    select serial, mount, issuer, lease, agent, task, not_after, issued_at, revoked_at, der from pki_certificate
        order by serial;
drop table pki_certificate;
alter table pki_certificate_by_rowid rename to pki_certificate;
create index pki_certificate_mount on pki_certificate (mount, serial);
create index pki_certificate_issuer on pki_certificate (issuer, serial);
create index pki_certificate_agent on pki_certificate (agent, serial);
create index pki_certificate_expiry on pki_certificate (not_after);
create unique index pki_certificate_lease on pki_certificate (lease) where lease is not null;
