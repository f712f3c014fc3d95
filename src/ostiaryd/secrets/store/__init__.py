"""The tables of secrets, tokens, leases and certificates."""
