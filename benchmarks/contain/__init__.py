"""Containment: what a hijacked agent can do, and what an honest one is still able to do. `docs/containment.md`."""
