"""What is remembered of tasks: one module per noun, SQL and nothing but SQL."""
