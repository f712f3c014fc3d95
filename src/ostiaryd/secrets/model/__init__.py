"""The rules of secrets: engines, paths, versions, encryption and tokens."""
