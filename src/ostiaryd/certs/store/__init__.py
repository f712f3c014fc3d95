"""The stored authorities, certificates and blocked keys."""
