"""Native libraries of trust, each run in a separate confined process."""
