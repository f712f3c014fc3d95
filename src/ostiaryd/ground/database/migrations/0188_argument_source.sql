create table argument_source (
    resource_id text not null references resource,
    tool text not null,
    argument text not null,
    source_tool text not null,
    source_field text not null,
    tasks bytea not null,
    agents bytea not null,
    primary key (resource_id, tool, argument, source_tool, source_field)
) {keyed};
