create table spent (
    seq bigint primary key,
    digest bytea not null,
    until bigint not null
) {strict};
insert into spent (seq, digest, until)
    select row_number() over (order by until), substr(digest, 1, 16), until from replay;
drop table replay;
