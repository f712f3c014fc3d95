"""Shared Signals in and out (SSF, CAEP, RISC)."""
