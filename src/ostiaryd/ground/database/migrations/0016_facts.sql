create table fact (
    idx bigint primary key,
    body bytea not null
) {strict};
create table catalogue (
    hash text primary key,
    body text not null
) {keyed};
insert into catalogue (hash, body) select catalogue_hash, catalogue from resource where catalogue is not null;
