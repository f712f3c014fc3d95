create table secret_rotation (
    path text primary key,
    config text not null,
    wrapped_key bytea not null,
    sealed bytea not null,
    pending_key bytea,
    pending bytea,
    attempt text not null,
    rotated_at bigint,
    due_at bigint not null,
    retire_at bigint,
    attempts bigint not null,
    error text not null
) {keyed};
create index secret_rotation_due on secret_rotation (due_at);
