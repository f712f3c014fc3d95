create table counterpart (
    owner text primary key,
    body bytea not null
) {keyed};
