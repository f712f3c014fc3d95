"""Native libraries of trust, each for a process of its own."""
