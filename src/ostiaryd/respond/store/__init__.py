"""What is remembered of whom we tell and what we did: one module per noun, SQL and nothing but SQL."""
