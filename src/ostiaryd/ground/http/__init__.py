"""HTTP: the edge, routes, connections, limits, TLS."""
