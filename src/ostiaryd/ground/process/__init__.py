"""The process and its environment: confined child processes, the clock, file descriptors, ids, logs."""
