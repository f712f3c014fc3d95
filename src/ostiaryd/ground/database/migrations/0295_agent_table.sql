create index agent_by_state on agent (state, name);
create index agent_by_kind on agent (kind, name);
create index agent_by_tier on agent (risk_tier, name);
create index agent_by_segment on agent (segment, name);
create index agent_by_owner on agent (owner, name);
