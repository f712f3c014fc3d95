"""Secret engines, and the parts of the Vault API for mounts, policies, tokens, leases and login methods."""
