"""Containment: what a hijacked agent can do, and an honest agent still can. See docs/explanation/containment.md."""
