"""Operations on signals: one module for each noun, one function for each verb."""
