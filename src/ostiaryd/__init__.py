"""Ostiary's server: one package per capability, each built alike (see ARCHITECTURE.md)."""
