"""Engines of policies that are not Cedar, each in a process of its own (`ground.process.confined`)."""
