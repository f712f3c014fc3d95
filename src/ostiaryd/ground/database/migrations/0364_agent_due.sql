drop index agent_expiry;
create index agent_due on agent (state, expires_at) where expires_at is not null;
