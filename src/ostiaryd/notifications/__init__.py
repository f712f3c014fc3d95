"""Alerts to people: webhooks and their deliveries."""
