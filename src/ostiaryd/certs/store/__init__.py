"""The tables of authorities, certificates and blocked keys."""
