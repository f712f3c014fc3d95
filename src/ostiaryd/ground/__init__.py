"""Infrastructure that every package uses: database and writer, clock, keys, outbox, ids, configuration, HTTP."""
