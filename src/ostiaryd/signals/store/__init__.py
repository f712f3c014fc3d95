"""Stored signals, issuers and streams: SQL, and nothing but SQL."""
