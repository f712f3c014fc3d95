"""What reads what strangers wrote, in a process of its own (`ground.confined`)."""
