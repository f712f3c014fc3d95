create table secret_deletion (path bytea primary key, due_at bigint not null) {keyed};
create index secret_deletion_due on secret_deletion (due_at);
insert into secret_deletion (path, due_at)
    select path, 0 from secret where mount = 'secret' and custom like '%"aws:deletion"%';
