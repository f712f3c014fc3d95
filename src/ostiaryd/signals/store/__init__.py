"""The tables of signals, issuers and streams."""
