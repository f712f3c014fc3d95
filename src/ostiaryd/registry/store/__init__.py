"""What is remembered of those who exist: one module per noun, SQL and nothing but SQL."""
