alter table agent add column speaks bigint not null default 0;
create index agent_speaks on agent (speaks) where speaks = 1;
alter table task add column intent text;
create table intent (
    digest text primary key,
    body text not null
) {keyed};
