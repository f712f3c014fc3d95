create table vault_login_role (
    mount text not null,
    agent text not null,
    name text not null,
    role_id text,
    settings text not null,
    primary key (mount, agent, name)
) {keyed};
insert into vault_login_role (mount, agent, name, role_id, settings)
    select mount, agent, name, role_id, settings from vault_role;
drop table vault_role;
create unique index vault_login_role_id on vault_login_role (mount, role_id);
-- the keyed hash of a secret ID contains the agent from now on, so that no hash of before is found
delete from vault_secret_id;
alter table vault_secret_id add column agent text not null default '';
drop index vault_secret_id_role;
create index vault_secret_id_of_role on vault_secret_id (mount, agent, role);
