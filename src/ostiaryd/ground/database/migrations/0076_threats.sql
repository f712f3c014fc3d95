create table threat_list (
    list_id text primary key,
    name text not null unique,
    url text not null,
    form text not null,
    points bigint not null,
    created_at bigint not null,
    due_at bigint not null,
    refreshed_at bigint,
    failed text not null,
    skipped bigint not null,
    networks text not null,
    marks bytea not null
) {keyed};
create table threat_version (version bigint not null);
insert into threat_version values (0);
