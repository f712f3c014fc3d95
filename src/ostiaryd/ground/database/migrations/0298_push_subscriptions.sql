create table push_subscription (
    subscription_id text primary key,
    person text not null,
    endpoint text not null unique,
    public_key bytea not null,
    auth bytea not null,
    browser text not null,
    created_at bigint not null,
    next_idx bigint not null,
    attempts bigint not null,
    due_at bigint not null,
    busy_until bigint not null
) {keyed};
create index push_subscription_of_person on push_subscription (person, subscription_id);
create index push_subscription_next on push_subscription (next_idx);
