create table policy_set (
    hash text primary key,
    files text not null,
    ir text not null,
    actions text not null,
    policies bigint not null,
    tests bigint not null,
    created_at bigint not null,
    created_by text not null
) {keyed};
create table policy_active (
    id bigint primary key,
    hash text not null references policy_set,
    since bigint not null
) {strict};
