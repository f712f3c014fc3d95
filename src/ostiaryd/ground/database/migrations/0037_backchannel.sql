create table backchannel (
    request text primary key,
    approval text not null unique,
    client text not null,
    person text not null,
    asked text not null,
    digest text not null,
    interval_s bigint not null,
    polled_at bigint not null,
    expires_at bigint not null,
    answered_at bigint,
    is_approved bigint not null
) {keyed};
