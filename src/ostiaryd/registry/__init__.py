"""The registry: persons and teams, agents and their keys, resources and catalogues, and the holdings of agents."""
