"""Data and rules of alerts, webhooks and push messages. Does no I/O."""
