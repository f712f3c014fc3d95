"""The decision point: policy sets as code, their compiler, and the wires that ask for decisions."""
