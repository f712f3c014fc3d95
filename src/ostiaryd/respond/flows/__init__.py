"""What happens about what has happened: one module per noun, one function per verb."""
