create table incident_note (
    incident text not null,
    number bigint not null,
    at bigint not null,
    person text not null,
    says text not null,
    primary key (incident, number)
) {keyed};
create index finding_open on finding (finding_id) where verdict is null;
