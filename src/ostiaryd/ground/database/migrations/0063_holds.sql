create table hold (
    agent text not null references agent,
    kind text not null,
    most bigint not null,
    since bigint not null,
    until bigint not null,
    minute bigint not null default 0,
    calls bigint not null default 0,
    primary key (agent, kind)
) {keyed};
create index hold_until on hold (until);
alter table agent add column held_until bigint not null default 0;
