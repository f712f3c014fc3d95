"""Certificates: the certificate authority and its profiles; issuance, renewal and revocation."""
