create index task_intent on task (intent) where intent is not null;
