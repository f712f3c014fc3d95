"""Operations on signals: one module per noun, one function per verb."""
