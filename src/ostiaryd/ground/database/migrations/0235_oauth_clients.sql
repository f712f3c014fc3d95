create table oauth_client (
    client_id text primary key,
    handle text not null,
    kind text not null,
    state text not null,
    metadata text not null,
    digest text not null,
    created_at bigint not null,
    changed_at bigint not null,
    fresh_until bigint,
    used_at bigint,
    network text not null,
    access_digest text
) {keyed};
create unique index oauth_client_handle on oauth_client (handle);
create index oauth_client_unused on oauth_client (created_at) where used_at is null;
create table registration_token (
    digest text primary key,
    id text not null,
    created_at bigint not null,
    expires_at bigint not null,
    uses_left bigint not null
) {keyed};
