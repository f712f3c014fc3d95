create table used_secret (
    agent text not null,
    digest bytea not null,
    prints bytea not null,
    until bigint not null,
    primary key (agent, digest)
) {keyed};
create index used_secret_until on used_secret (until);
