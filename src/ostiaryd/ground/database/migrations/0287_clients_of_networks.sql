create index oauth_client_network on oauth_client (network) where used_at is null;
