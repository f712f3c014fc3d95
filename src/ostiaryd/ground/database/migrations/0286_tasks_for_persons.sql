drop index task_live;
create index task_live on task (agent, person) where state = 'live';
