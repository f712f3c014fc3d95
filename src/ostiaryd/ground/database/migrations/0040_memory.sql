create table memory (
    task text primary key references task,
    tree text not null,
    seq bigint not null,
    body bytea not null
) {keyed};
alter table task add column memory text;
