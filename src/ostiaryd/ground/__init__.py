"""The infrastructure of every package: database and writer, clock, keys, outbox, ids, configuration, HTTP."""
