"""Parsers of uploads, each in a confined process (`ground.confined`)."""
