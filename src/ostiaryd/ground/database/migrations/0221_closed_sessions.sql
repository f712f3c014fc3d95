alter table person_session add column closed_at bigint;
create index person_session_ended on person_session (ended_at) where ended_at is not null and closed_at is null;
