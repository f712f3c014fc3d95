create table webhook (
    webhook_id text primary key,
    url text not null unique,
    actions text not null,
    created_at bigint not null,
    next_idx bigint not null,
    attempts bigint not null,
    due_at bigint not null,
    busy_until bigint not null,
    delivered bigint not null,
    delivered_at bigint,
    lost bigint not null,
    failed text not null,
    gone_at bigint
) {keyed};
