"""Operations on incidents: one module per noun, one function per verb."""
