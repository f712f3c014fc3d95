create table bearer_exemption (
    agent text not null,
    resource text not null,
    since bigint not null,
    primary key (agent, resource)
) {keyed};
create index bearer_exemption_resource on bearer_exemption (resource);
drop table bearer_client;
