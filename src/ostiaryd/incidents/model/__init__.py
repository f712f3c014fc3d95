"""Data and rules of incidents. Does no I/O."""
