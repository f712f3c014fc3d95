"""Trust: who is calling, how strongly it was proved, and that no proof is used twice."""
