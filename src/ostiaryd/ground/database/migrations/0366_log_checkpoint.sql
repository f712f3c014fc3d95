create table log_checkpoint (
    size bigint primary key,
    at bigint not null,
    note text not null
) {strict};
