alter table webhook add column form text not null default 'signed';
