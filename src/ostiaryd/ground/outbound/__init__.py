"""Outbound traffic: the SSRF-safe fetcher, mail, the outbox."""
