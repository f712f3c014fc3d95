"""Facts and rules of alerts and webhooks. Pure."""
