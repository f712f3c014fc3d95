"""What every room stands on: database and writer, clock and dice, keyring, outbox, ids, configuration."""
