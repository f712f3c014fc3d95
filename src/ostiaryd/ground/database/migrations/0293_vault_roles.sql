create table vault_role (
    mount text not null,
    name text not null,
    role_id text,
    agent text not null,
    settings text not null,
    primary key (mount, name)
) {keyed};
create unique index vault_role_id on vault_role (mount, role_id);
create table vault_secret_id (
    digest bytea primary key,
    mount text not null,
    role text not null,
    accessor text not null,
    holding text not null,
    settings text not null,
    scopes text not null,
    details text not null,
    uses_left bigint not null,
    created_at bigint not null,
    expires_at bigint not null
) {keyed};
create unique index vault_secret_id_accessor on vault_secret_id (accessor);
create index vault_secret_id_role on vault_secret_id (mount, role);
create index vault_secret_id_expiry on vault_secret_id (expires_at);
