alter table secret add column stages text not null default '{}';
