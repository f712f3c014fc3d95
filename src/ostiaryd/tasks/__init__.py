"""Tasks: what an agent has declared it is about to do, for whom, within which bounds, until when."""
