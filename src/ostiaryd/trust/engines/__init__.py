"""Native libraries of trust, each run in a process of its own."""
