"""The trust bundle of the server's own trust domain, and the keys of its JWT-SVIDs.

A key is published before it signs, so that federated trust domains have fetched the key before they need it (SPIFFE
Federation, 4.1). The sequence number of the bundle increases with each change. The number is taken from the clock, so
that a restored database does not publish a lower number.
"""

from __future__ import annotations

from functools import lru_cache

from ostiary.protocol import canonical, jose
from ostiary.protocol.errors import Unavailable
from ostiaryd.certs import store
from ostiaryd.certs.flows.authorities import ready_issuer
from ostiaryd.certs.model.bundle import EMPTY, REFRESH_S, JwtAuthority, TrustBundle, parse_jwt_authority, render_bundle
from ostiaryd.certs.model.jwt_svid import LIFETIME_S
from ostiaryd.certs.model.trust_domain import parse_stored
from ostiaryd.certs.store.bundles import SvidKey
from ostiaryd.ground.config import Config
from ostiaryd.ground.crypto.keyring import Keyring, RootKey
from ostiaryd.ground.database import Reader
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry

SECOND = 1_000_000
TOPIC = "workload"
"""Outbox topic of messages that wake the streams of the Workload API."""
ROTATE = 7 * 86_400 * SECOND
"""Age in microseconds at which the signing key of JWT-SVIDs gets a successor."""
AHEAD = 5 * REFRESH_S * SECOND
"""Microseconds between the publication of a key and its first signature: five times the refresh hint (SPIFFE
Federation, 4.1).
"""
KEPT = 2 * LIFETIME_S * SECOND
"""Microseconds for which a signing key stays published after the next key has begun to sign."""
_PURPOSE = "keys of JWT-SVIDs"


def find_own_bundle(reader: Reader, config: Config) -> TrustBundle | None:
    """Return the published bundle of this server's trust domain; None if none has been published."""
    published = store.bundles.bundle(reader, config.trust_domain)
    return None if published is None else parse_stored(published[1])


def own_bundle(reader: Reader, config: Config) -> TrustBundle:
    """Return the published bundle of this server's trust domain. Raises Unavailable if none has been published."""
    if (bundle := find_own_bundle(reader, config)) is None:
        raise Unavailable(
            "the trust domain has no bundle yet", hint="register a workload: ostiary agent workload add NAME --uid UID"
        )
    return bundle


def publish_bundle(act: Act, config: Config) -> TrustBundle:
    """Publish the present keys of the trust domain, and return the bundle. If the keys have changed, wake the streams
    of the Workload API.

    The first call creates the keys. A later call creates the next key of JWT-SVIDs if a rotation is due.
    """
    if not store.authorities.trust_bundle(act.tx):
        ready_issuer(act, config=config)
    _rotate_key(act)
    published = store.bundles.bundle(act.tx, config.trust_domain)
    before = EMPTY if published is None else parse_stored(published[1])
    bundle = _present_keys(act.tx, act.tx.keys)
    if published is not None and (before.x509, before.jwt_jwks) == (bundle.x509, bundle.jwt_jwks):
        return before
    sequence = max(act.now // 1000, 0 if published is None else published[0] + 1)
    bundle = bundle._replace(sequence=sequence, refresh_hint_s=REFRESH_S)
    store.bundles.put_bundle(act.tx, config.trust_domain, sequence=sequence, content=render_bundle(bundle))
    registry.fill_entry(
        act,
        object=act.entry.object or config.trust_domain,
        bundle_sequence=sequence,
        authorities=len(bundle.x509),
        jwt_keys=[one.kid for one in bundle.jwt],
    )
    wake_workloads(act)
    return bundle


async def publish_due(world: World) -> None:
    """Publish a new bundle if an authority or a key of the trust domain has changed, or a key rotation is due."""
    if await world.db.scan(lambda reader: is_due(reader, world.keys, world.config, now=world.now())):
        await act(world, "bundle.publish", lambda act: publish_bundle(act, world.config))


def is_due(reader: Reader, keys: Keyring, config: Config, *, now: int) -> bool:
    """Return whether a new bundle must be published. The first bundle is due once a workload is registered."""
    published = store.bundles.bundle(reader, config.trust_domain)
    if published is None:
        return store.workloads.has_any(reader)
    keys_in_order = store.bundles.svid_keys(reader)
    if not keys_in_order or _needs_successor(keys_in_order, now) or _is_worthless(keys_in_order, now):
        return True
    before, present = parse_stored(published[1]), _present_keys(reader, keys)
    return (before.x509, before.jwt_jwks) != (present.x509, present.jwt_jwks)


def svid_signer(act: Act) -> jose.PrivateKey:
    """Return the key that signs JWT-SVIDs now. Raises Unavailable if no bundle has been published."""
    signing = [key for key in store.bundles.svid_keys(act.tx) if key.signs_at <= act.now]
    if not signing:
        raise Unavailable(
            "the trust domain has no key that signs JWT-SVIDs yet",
            hint="register a workload: ostiary agent workload add NAME --uid UID",
        )
    return _open(act.tx.keys.derive(_PURPOSE), signing[-1].kid, signing[-1].sealed)


def wake_workloads(act: Act) -> None:
    """Wake the streams of the Workload API on every server of the database, so that each stream reads the present
    state.
    """
    outbox.emit(act.tx, TOPIC, b"{}")


def _rotate_key(act: Act) -> None:
    """Create the next key of JWT-SVIDs if a rotation is due, and delete each key whose JWT-SVIDs have all expired."""
    keys_in_order = store.bundles.svid_keys(act.tx)
    if not keys_in_order or _needs_successor(keys_in_order, act.now):
        key = jose.generate("ES256")
        sealed = act.tx.keys.value_key(_PURPOSE).seal(
            canonical.encode(key.jwk()), context=_context(key.public.kid), random=act.tx.random
        )
        store.bundles.insert_key(act.tx, key.public.kid, sealed, signs_at=act.now + AHEAD if keys_in_order else act.now)
        keys_in_order = store.bundles.svid_keys(act.tx)
    while _is_worthless(keys_in_order, act.now):
        store.bundles.delete_key(act.tx, keys_in_order.pop(0).kid)


def _needs_successor(keys_in_order: list[SvidKey], now: int) -> bool:
    return now >= keys_in_order[-1].signs_at + ROTATE


def _is_worthless(keys_in_order: list[SvidKey], now: int) -> bool:
    """Return whether all JWT-SVIDs of the oldest key have expired, because the next key has signed for at least
    `KEPT`.
    """
    return len(keys_in_order) > 1 and now >= keys_in_order[1].signs_at + KEPT


def _present_keys(reader: Reader, keys: Keyring) -> TrustBundle:
    """Return the present keys of the trust domain as a bundle without a sequence number."""
    secret = keys.derive(_PURPOSE)
    authorities = [_authority(secret, key.kid, key.sealed) for key in store.bundles.svid_keys(reader)]
    return TrustBundle(tuple(sorted(store.authorities.trust_bundle(reader))), tuple(authorities))


@lru_cache(maxsize=64)
def _authority(secret: bytes, kid: str, sealed: bytes) -> JwtAuthority:
    authority = parse_jwt_authority({**_open(secret, kid, sealed).public.jwk})
    assert authority is not None  # a key of our own
    return authority


@lru_cache(maxsize=64)
def _open(secret: bytes, kid: str, sealed: bytes) -> jose.PrivateKey:
    """Decrypt and return a key of JWT-SVIDs. Raises Conflict if the key was encrypted with another secret."""
    plain = RootKey(secret, source="derived").open(sealed, context=_context(kid))
    return jose.parse_private_jwk(canonical.parse(plain), is_sound=True)


def _context(kid: str) -> bytes:
    return f"key of JWT-SVIDs|{kid}".encode()
