"""The tables of authorities, certificates and blocked keys."""

from ostiaryd.certs.store import (
    acme,
    authorities,
    bundles,
    certificates,
    trust_domains,
    workloads,
)

__all__ = [
    "acme",
    "authorities",
    "bundles",
    "certificates",
    "trust_domains",
    "workloads",
]
