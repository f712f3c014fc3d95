"""Alerts to people and programs: webhooks, push messages to browsers, and their delivery."""
