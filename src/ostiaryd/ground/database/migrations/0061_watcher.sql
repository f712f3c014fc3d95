create table watcher (
    id bigint primary key,
    told bigint not null,
    told_by text not null,
    generation bigint not null,
    snapshot bytea
) {strict};
insert into watcher (id, told, told_by, generation) values (1, -1, '', 0);
create table watched (
    key text not null,
    generation bigint not null,
    body bytea not null,
    primary key (key, generation)
) {keyed};
create index watched_generation on watched (generation);
