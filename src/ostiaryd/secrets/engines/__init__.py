"""Secret engines: a module for each kind of secret. Its name is the type of the engine."""
