"""What is true of what we do about what has happened: one module per noun. Pure."""
