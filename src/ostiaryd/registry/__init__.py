"""Who exists: persons and teams, agents and their keys, resources and catalogues, and all that an agent holds."""
