"""Secrets: stored encrypted, and used by agents under their tasks through the APIs of HashiCorp Vault and AWS Secrets
Manager.
"""
