"""Tasks: the declared purposes of agents, each with its person, bounds and end."""
