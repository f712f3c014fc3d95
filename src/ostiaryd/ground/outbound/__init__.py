"""What leaves the server: fetches, mail, the outbox."""
