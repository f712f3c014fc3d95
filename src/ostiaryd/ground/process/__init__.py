"""The process: confined children, the clock, descriptors, identifiers, logs."""
