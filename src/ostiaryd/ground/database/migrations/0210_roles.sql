create table role_assignment (
    subject text not null,
    role text not null,
    source text not null,
    granted_at bigint not null,
    primary key (subject, role, source)
) {keyed};
create index role_assignment_role on role_assignment (role, subject);
create index role_assignment_source on role_assignment (source) where source <> '';
