create table policy_watched (
    id bigint primary key,
    hash text not null references policy_set,
    since bigint not null
) {strict};
