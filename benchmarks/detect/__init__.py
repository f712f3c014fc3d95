"""Detection: the findings of a guard in recorded runs before the harmful call. See docs/explanation/risk.md."""
