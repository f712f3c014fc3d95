create table aws_root (
    name text primary key,
    config text not null,
    wrapped_key bytea not null,
    sealed bytea not null,
    updated_at bigint not null
) {keyed};
create table aws_role (
    name text primary key,
    role text not null,
    updated_at bigint not null
) {keyed};
