"""Questions to people, and what their yes is good for."""
