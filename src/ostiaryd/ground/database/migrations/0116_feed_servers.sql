create table feed_server (
    server text primary key,
    beat bigint not null,
    guards bytea not null
) {keyed};
