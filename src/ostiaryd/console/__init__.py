"""The web console: serves the built assets of `console/`, which call the administration API in the person's session."""
