alter table approval add column tool text not null default '';
alter table approval_answer add column covers bigint not null default 0;
create table approval_cover (
    approval_id text not null references approval,
    line bigint not null,
    task text not null,
    counterpart text not null,
    extent text not null,
    uses_left bigint not null,
    primary key (approval_id, line)
) {keyed};
create index approval_cover_counterpart on approval_cover (task, counterpart);
