"""Tokens: the OAuth 2.1 authorization server. Issue, introspect, revoke, metadata."""
