"""Ostiary's server: one package per capability, all with the same structure (see ARCHITECTURE.md)."""
