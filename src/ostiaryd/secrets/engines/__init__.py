"""Secret engines: one module for each kind of secret. The name of the module is the type of the engine."""
