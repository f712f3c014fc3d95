"""Engines of policy sets and of policies that are not Cedar, each in its own process (`ground.process.confined`)."""
