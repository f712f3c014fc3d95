create table workload (
    workload_id text primary key,
    agent text not null references agent,
    uid bigint,
    selectors text not null,
    created_at bigint not null
) {keyed};
create index workload_agent on workload (agent);
create index workload_uid on workload (uid);
