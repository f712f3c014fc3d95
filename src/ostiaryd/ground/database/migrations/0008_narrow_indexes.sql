drop index holding_jkt;
create index holding_jkt on holding (jkt, expires_at) where client_jkt is null or jkt <> client_jkt or agent >= 'rs_';
update entry set task = '' where task = 'tk_' || substr(agent, 4);
