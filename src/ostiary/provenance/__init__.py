"""Where values and content come from: intents, task memory, origins, labels, history, noticing. Pure."""
