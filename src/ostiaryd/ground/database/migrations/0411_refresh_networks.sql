alter table oauth_grant add column rotated_from text not null default '';
