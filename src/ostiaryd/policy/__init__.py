"""The decision point: policy sets as code, their compiler, and the HTTP routes that request decisions."""
