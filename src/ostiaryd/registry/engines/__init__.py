"""Parsers of uploads, each in a confined process (`ground.process.confined`)."""
