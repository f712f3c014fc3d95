alter table task add column heartbeat bigint;
alter table task add column beat_until bigint;
alter table task add column ends_with_last bigint not null default 0;
create index task_beat on task (beat_until) where state = 'live' and beat_until is not null;
create table holder (
    task text not null references task,
    holder text not null,
    since bigint not null,
    beat_at bigint not null,
    primary key (task, holder)
) {keyed};
