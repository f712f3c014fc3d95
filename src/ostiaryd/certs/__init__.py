"""Certificates: the certificate authority, its profiles, issue, renewal and revocation."""
