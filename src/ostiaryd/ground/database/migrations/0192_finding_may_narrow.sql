-- Whether a finding may take the agent's work away without a person: certain evidence, or a statistical detector within
-- its budget. Findings from before could.
alter table finding add column may_narrow bigint not null default 1;
