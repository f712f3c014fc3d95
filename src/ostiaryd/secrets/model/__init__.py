"""Data and rules of secrets: engines, paths, versions, encryption, leases and tokens. Does no I/O."""
