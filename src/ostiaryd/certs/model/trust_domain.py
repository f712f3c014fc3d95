"""Federation with another trust domain: an administrator states its name and the URL of its bundle, and this server
fetches the bundle.

The federation is one-way (SPIFFE Federation, section 6). The name is never taken from the fetched document (7.2).
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.certs.model.bundle import EMPTY, TrustBundle, parse_bundle, render_bundle
from ostiaryd.certs.model.spiffe_id import SpiffeId, check_trust_domain, parse_spiffe_id

MAX_TRUST_DOMAINS = 64
SECOND = 1_000_000


class BackwardBundle(Conflict):
    """The fetched bundle is older than the stored bundle, or has other keys under the same sequence number, so it is
    refused.
    """

    code = "sequence_backward"


class OwnAuthority(Conflict):
    """The fetched bundle has a key of this server's own trust domain, so it is refused: the endpoint is this server, or
    the other trust domain copies this server's bundle.
    """

    code = "own_authority"


class TrustDomain(msgspec.Struct, frozen=True, kw_only=True):
    """A federated trust domain. `content` is its last fetched bundle as JSON; before the first fetch, the first bundle
    that an administrator stated, or None. Times are microseconds since the epoch.
    """

    name: str
    bundle_url: str
    endpoint_spiffe_id: str = ""
    """SPIFFE ID that the bundle endpoint must prove (`https_spiffe`); if empty, the endpoint must prove its host name
    (`https_web`)
    """
    sequence: int | None = None
    content: bytes | None = None
    refreshed_at: int | None = None
    due_at: int
    failed: str = ""
    created_at: int

    @property
    def bundle(self) -> TrustBundle:
        """Return the bundle in `content`. Without a bundle so far, return an empty bundle, so that no identity of the
        trust domain is trusted.
        """
        return EMPTY if self.content is None else parse_stored(self.content)


@lru_cache(maxsize=256)
def parse_stored(content: bytes) -> TrustBundle:
    """Return the bundle in a stored JSON document. The result is cached."""
    return parse_bundle(content)


def check_other_domain(name: str, *, own: str) -> str:
    """Return `name` if it is the valid name of a trust domain other than the server's own. Raises Invalid otherwise."""
    if check_trust_domain(name) == own:
        raise Invalid(f"`{name}` is the trust domain of this server")
    return name


def check_endpoint(name: str, endpoint_spiffe_id: str, bundle: TrustBundle | None) -> SpiffeId | None:
    """Return the SPIFFE ID of a trust domain's bundle endpoint; None for the profile `https_web`. Raises Invalid if
    SPIFFE ID and bundle do not fit together.

    A first bundle is required if the endpoint is in the same trust domain, and refused otherwise (SPIFFE Federation,
    5.2.2.2).
    """
    if not endpoint_spiffe_id:
        if bundle is not None:
            raise Invalid("`bundle` is only for an endpoint with a SPIFFE ID", hint="set `endpoint_spiffe_id` too")
        return None
    endpoint = parse_spiffe_id(endpoint_spiffe_id)
    if not endpoint.path:
        raise Invalid(
            "`endpoint_spiffe_id` names a trust domain, not a server: its path is empty", hint=f"spiffe://{name}/PATH"
        )
    if endpoint.trust_domain == name and bundle is None:
        raise Invalid(
            f"`bundle` is required, because the endpoint is in the trust domain `{name}` itself",
            hint="get the first bundle from the operator of the trust domain",
        )
    if endpoint.trust_domain != name and bundle is not None:
        raise Invalid(
            f"`bundle` is refused, because the endpoint is in another trust domain, `{endpoint.trust_domain}`",
            hint=f"omit `bundle`: the bundle of `{endpoint.trust_domain}` authenticates the endpoint",
        )
    if bundle is not None and not bundle.x509:
        raise Invalid("`bundle` has no X.509 authority, so the endpoint could not be authenticated")
    return endpoint


def check_foreign(name: str, bundle: TrustBundle, *, own: TrustBundle) -> None:
    """Check that the bundle of another trust domain has no key of this server's own trust domain. Otherwise the
    authority of this server would certify identities of both. Raises OwnAuthority if the check fails.
    """
    if bundle.public_keys & own.public_keys:
        raise OwnAuthority(
            f"the bundle of `{name}` has a key of this server's own trust domain",
            hint="state the URL of the other trust domain's own bundle endpoint",
        )


def is_new(domain: TrustDomain, bundle: TrustBundle) -> bool:
    """Return whether a fetched bundle must replace the stored bundle; False if both are equal.

    Raises BackwardBundle for a lower sequence number, and for other content (keys or refresh hint) under the same
    number (SPIFFE Trust Domain and Bundle, 4.1.1). If one of the two bundles has no sequence number, the fetched bundle
    counts as the newest (SPIFFE Federation, 4.2).
    """
    if domain.content is None:
        return True
    if domain.content == render_bundle(bundle):
        return False
    if bundle.sequence is not None and domain.sequence is not None and bundle.sequence <= domain.sequence:
        problem = f"a lower number than the stored bundle ({domain.sequence})"
        if bundle.sequence == domain.sequence:
            problem = "other content than the stored bundle with this number"
        raise BackwardBundle(
            f"the bundle of `{domain.name}` with the sequence number {bundle.sequence} has {problem}",
            hint="ask the operator of the trust domain; to begin anew: ostiary trust-domain remove NAME, then "
            "ostiary trust-domain add NAME --bundle-url URL",
        )
    return True
