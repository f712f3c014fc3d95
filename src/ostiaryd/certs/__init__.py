"""The certificate authority: its profiles, and the issuance, renewal and revocation of certificates."""
