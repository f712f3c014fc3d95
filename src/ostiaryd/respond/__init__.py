"""What we do about what has happened: whom we tell."""
