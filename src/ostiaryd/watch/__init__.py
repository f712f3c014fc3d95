"""What behaviour is like, and what is noticed about it."""
