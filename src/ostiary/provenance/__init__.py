"""Provenance of values and content: intents, task memory, origins, labels, history, noticing. Pure."""
