create index task_live_newest on task (task_id) where state = 'live';
