alter table finding add column resource text;
alter table finding add column score text not null default '';
alter table finding add column verdict text;
alter table finding add column judged_by text;
alter table finding add column judged_at bigint;
alter table finding add column why text;
