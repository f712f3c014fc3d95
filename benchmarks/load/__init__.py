"""A load for the server over HTTP: the server on one core, the client on another, every request made beforehand."""
