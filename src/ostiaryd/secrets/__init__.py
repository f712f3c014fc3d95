"""Secrets: stored encrypted, used by agents under their tasks, through the API of HashiCorp Vault."""
