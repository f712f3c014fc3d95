"""Detection: what a guard notices in recorded runs of models before the harmful call. `docs/noticing.md`."""
