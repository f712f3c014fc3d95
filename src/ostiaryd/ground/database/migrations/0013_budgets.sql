create table budget (
    budget_id text primary key,
    holder text not null,
    terms text not null,
    daily bigint not null,
    parent text references budget,
    ended_at bigint
) {keyed};
create index budget_holder on budget (holder) where ended_at is null;
create index budget_parent on budget (parent) where parent is not null;
create table account (
    account_id text primary key,
    budget_id text not null references budget,
    ceiling bigint not null,
    taken bigint not null,
    spent bigint not null,
    opened_at bigint not null
) {keyed};
create table slice (
    spool text not null,
    account_id text not null references account,
    amount bigint not null,
    spent bigint not null,
    primary key (spool, account_id)
) {keyed};
create index slice_account on slice (account_id);
alter table spool add column closed_at bigint;
