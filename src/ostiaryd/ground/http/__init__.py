"""HTTP: requests and replies, routes, connections, limits, TLS."""
