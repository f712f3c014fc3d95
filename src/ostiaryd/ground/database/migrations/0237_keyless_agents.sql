alter table agent add column keyless bigint not null default 0;
