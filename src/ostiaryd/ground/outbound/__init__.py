"""Requests and messages to other servers: HTTP with protection against SSRF, mail, databases, DNS, and the outbox."""
