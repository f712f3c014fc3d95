drop index task_person;
create index task_person on task (person) where state = 'live' and person is not null;
