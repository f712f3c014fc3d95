-- Each index has every column that its count reads: SQLite otherwise looks up each counted row in the table.
drop index oauth_client_unused;
create index oauth_client_unused on oauth_client (created_at, used_at) where used_at is null;
drop index oauth_client_network;
create index oauth_client_network on oauth_client (network, used_at) where used_at is null;
drop index authorization_request_network;
create index authorization_request_network on authorization_request (network, expires_at, used_at)
    where used_at is null and network <> '';
create index device_client on device (client_id, expires_at);
