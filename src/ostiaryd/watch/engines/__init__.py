"""Parsers of input from untrusted sources, run in a confined process (`ground.process.confined`)."""
