create table vault_token_option (
    accessor text primary key,
    agent text not null,
    options text not null,
    uses_left bigint not null,
    expires_at bigint not null
) {keyed};
create index vault_token_option_agent on vault_token_option (agent);
create index vault_token_option_expiry on vault_token_option (expires_at);
