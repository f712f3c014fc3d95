create table session_client (
    session text not null,
    client_id text not null,
    expires_at bigint not null,
    primary key (session, client_id)
) {keyed};
create index session_client_end on session_client (expires_at);
