create table log_history (
    id text primary key,
    began_at bigint not null,
    ended_at bigint
) {keyed};
create unique index log_history_present on log_history (coalesce(ended_at, 0)) where ended_at is null;
create table loss (
    source text primary key,
    history text not null,
    size bigint not null,
    root text not null,
    ours bigint not null,
    at bigint not null
) {keyed};
