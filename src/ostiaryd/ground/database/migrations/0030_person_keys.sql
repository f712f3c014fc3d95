create table person_key (
    jkt text primary key,
    person text not null references person,
    alg text not null,
    jwk text not null,
    added_at bigint not null,
    revoked_at bigint
) {keyed};
create index person_key_person on person_key (person, added_at);
