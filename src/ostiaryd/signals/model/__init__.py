"""Data and rules of signals: security event tokens, issuers and streams. Does no I/O."""
