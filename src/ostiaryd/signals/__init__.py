"""Shared Signals, sent to receivers and received from trusted issuers (SSF, CAEP, RISC)."""
