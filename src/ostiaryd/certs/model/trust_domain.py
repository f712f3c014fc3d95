"""Federation with another trust domain: its name and URL are the operator's words, its bundle is fetched.

The relationship is one-way (SPIFFE Federation, section 6). The name never comes from the document (7.2).
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.certs.model.bundle import EMPTY, TrustBundle, parse_bundle, render_bundle
from ostiaryd.certs.model.spiffe_id import check_trust_domain

MAX_TRUST_DOMAINS = 64
SECOND = 1_000_000


class BackwardBundle(Conflict):
    """A bundle that is older than the one before: a copy of a time when other keys counted."""

    code = "sequence_backward"


class TrustDomain(msgspec.Struct, frozen=True, kw_only=True):
    """A federated trust domain. Times in microseconds; `content` is its last bundle, None before the first one."""

    name: str
    bundle_url: str
    sequence: int | None = None
    content: bytes | None = None
    refreshed_at: int | None = None
    due_at: int
    failed: str = ""
    created_at: int

    @property
    def bundle(self) -> TrustBundle:
        """The last bundle; an empty one before the first: then nothing of the trust domain is trusted."""
        return EMPTY if self.content is None else parse_stored(self.content)


@lru_cache(maxsize=256)
def parse_stored(content: bytes) -> TrustBundle:
    """Return a bundle that was stored."""
    return parse_bundle(content)


def check_other_domain(name: str, *, own: str) -> str:
    """Return the name of another trust domain. Raises Invalid."""
    if check_trust_domain(name) == own:
        raise Invalid(f"`{name}` is the trust domain of this server")
    return name


def is_new(domain: TrustDomain, bundle: TrustBundle) -> bool:
    """Return whether a fetched bundle replaces the last one; False if it is the same.

    Raises BackwardBundle for a lower sequence, and for other keys under the same sequence (SPIFFE Trust Domain and
    Bundle, 4.1.1). A bundle without a sequence counts as the newest (SPIFFE Federation, 4.2).
    """
    if domain.content is None:
        return True
    if domain.content == render_bundle(bundle):
        return False
    if bundle.sequence is not None and domain.sequence is not None and bundle.sequence <= domain.sequence:
        raise BackwardBundle(
            f"the bundle of `{domain.name}` has the sequence {bundle.sequence}; {domain.sequence} was there before",
            hint="ask its operator; to begin anew: ostiary trust-domain remove, and add",
        )
    return True
