create table egress_destination (
    name text primary key,
    origin text not null,
    secret text not null,
    member text not null,
    place text not null,
    field text not null,
    template text not null,
    is_private integer not null,
    created_at bigint not null
) {keyed};
