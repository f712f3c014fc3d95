"""Trust: authentication of callers, the strength of their proofs, and protection against replay."""
