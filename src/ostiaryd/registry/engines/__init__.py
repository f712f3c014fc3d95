"""Parsers of uploads, which run in a confined process (`ground.process.confined`)."""
