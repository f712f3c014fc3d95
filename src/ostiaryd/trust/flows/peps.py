"""Static policy enforcement points (PEPs): AuthZEN gateways that authenticate by an API key instead of a key pair.

An API key is a random secret that expires. It is accepted only from the networks of its PEP and only at the AuthZEN
endpoints (ADR 55). The server stores an HMAC of the key under a secret of the server, so a person with write access to
the database cannot add a key.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from dataclasses import dataclass, field

from ostiary.protocol.errors import Conflict, NotFound
from ostiary.protocol.proxies import is_within_networks
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import DECIDE, Caller, check_name
from ostiaryd.trust import store
from ostiaryd.trust.model import (
    MAX_PEP_KEYS,
    MAX_PEPS,
    PEP_USE_INTERVAL,
    SECOND,
    AccessRefused,
    Pep,
    PepKey,
    check_networks,
    check_pep_days,
    check_pep_overlap,
    is_pep_key,
    render_pep_key,
)

DAY, HOUR = 86_400 * SECOND, 3600 * SECOND
DEFAULT_DAYS = 90
DEFAULT_OVERLAP_H = 24
ENDS_SOON = 14 * DAY
UNUSED = 7 * DAY


@dataclass(frozen=True, slots=True)
class NewPepKey:
    """A new API key, which is shown once; `expires_at` in microseconds."""

    pep: Pep
    key: str = field(repr=False)
    expires_at: int


def create_pep(act: Act, *, name: str, networks: Collection[str], days: int = DEFAULT_DAYS) -> NewPepKey:
    """Register a static PEP and issue its first API key. Raises Invalid for a bad name, network or lifetime; Conflict
    for a taken name, and for too many PEPs.
    """
    registry.fill_entry(act, object=name[:64], networks=[text[:64] for text in networks], days=days)
    checked = check_networks(networks)
    check_pep_days(days)
    if store.peps.pep(act.tx, check_name(name)) is not None:
        raise Conflict(f"the name `{name}` is taken", hint="names cannot be reused, even after revocation")
    if store.peps.count_peps(act.tx) >= MAX_PEPS:
        raise Conflict(
            f"there are {MAX_PEPS} PEPs, the maximum",
            hint="revoke a PEP: ostiary pep revoke NAME",
            code="too_many_peps",
        )
    made = Pep(act.new_id("pp"), name, checked, act.now, None)
    registry.fill_entry(act, object=made.pep_id, name=name)
    store.peps.add_pep(act.tx, made)
    return _issue(act, made, days=days)


def rotate_pep(act: Act, id_or_name: str, *, days: int = DEFAULT_DAYS, overlap_h: int = DEFAULT_OVERLAP_H) -> NewPepKey:
    """Issue and return a new API key of a PEP. The older keys expire after `overlap_h` hours at the latest. `days` is
    the lifetime of the new key. Raises NotFound for an unknown PEP, Invalid for a bad lifetime or overlap, Conflict for
    a revoked PEP, and for too many live keys.
    """
    pep = find_pep(act.tx, id_or_name)
    registry.fill_entry(act, object=pep.pep_id, name=pep.name, days=days, overlap_h=overlap_h)
    _check_not_revoked(pep)
    check_pep_days(days)
    check_pep_overlap(overlap_h)
    ends = act.now + overlap_h * HOUR
    older = [key for key in store.peps.pep_keys(act.tx, pep.pep_id) if min(key.expires_at, ends) > act.now]
    if len(older) >= MAX_PEP_KEYS:
        raise Conflict(
            f"`{pep.name}` has {MAX_PEP_KEYS} live keys, the maximum",
            code="too_many_keys",
            hint="wait until the older key expires, or end both now: --overlap 0",
        )
    store.peps.end_pep_keys(act.tx, pep.pep_id, at=ends)
    return _issue(act, pep, days=days)


def revoke_pep(act: Act, id_or_name: str) -> None:
    """Revoke a PEP, and delete all its API keys. Raises NotFound for an unknown PEP, Conflict for a revoked one."""
    pep = find_pep(act.tx, id_or_name)
    registry.fill_entry(act, object=pep.pep_id, name=pep.name)
    _check_not_revoked(pep)
    store.peps.revoke_pep(act.tx, pep.pep_id)


def find_pep(reader: Reader, id_or_name: str) -> Pep:
    """Return a PEP by id or name. Raises NotFound if there is none."""
    if (pep := store.peps.pep(reader, id_or_name)) is None:
        raise NotFound(f"there is no PEP {id_or_name[:64]!a}", hint="`ostiary pep list` shows all")
    return pep


def verify_pep(
    reader: Reader, unverified_key: str, *, address: str, now: int, keys: Keyring
) -> tuple[Caller, bytes | None]:
    """Return the PEP of an API key as caller, and the digest of the key if the caller must record this use (otherwise
    None).

    The key is looked up by its HMAC, so neither the duration nor the error distinguishes an unknown key from a revoked
    one. For a genuine key, the error states the reason exactly. Raises AccessRefused for a key that is unknown, revoked
    or expired, or sent from another network.
    """
    digest = _digest(keys, unverified_key)
    row = store.peps.find_pep_key(reader, digest) if is_pep_key(unverified_key) else None
    if row is None:
        raise AccessRefused("the API key is unknown or revoked", hint="issue a new key: ostiary pep rotate NAME")
    match, key = row
    if now >= key.expires_at:
        raise AccessRefused(
            f"the API key of `{match.name}` has expired", hint="issue a new key: ostiary pep rotate NAME"
        )
    if not is_within_networks(address, match.networks):
        raise AccessRefused(
            f"the address {address[:64]!a} of the sender is in no network of the PEP `{match.name}`",
            hint="send from one of these networks (ostiary pep list), or create a PEP with this network",
        )
    is_noted = key.used_at is not None and now - key.used_at < PEP_USE_INTERVAL
    caller = Caller(kind="pep", id=match.pep_id, name=match.name, owner=None, scopes=frozenset({DECIDE}))
    return caller, None if is_noted else digest


def show_peps(reader: Reader) -> list[tuple[Pep, list[PepKey]]]:
    """Return every PEP with its API keys."""
    return [(one, store.peps.pep_keys(reader, one.pep_id)) for one in store.peps.peps(reader)]


def examine_peps(reader: Reader, *, now: int) -> tuple[list[str], list[str], int]:
    """Return three values for `doctor`: (1) the names of PEPs without a key that is valid for more than 14 days; (2)
    the names of PEPs with a key that is at least 7 days old and was never used; (3) the number of PEPs that are not
    revoked.
    """
    living = [(one, keys) for one, keys in show_peps(reader) if one.revoked_at is None]
    ending = [one.name for one, keys in living if max((key.expires_at for key in keys), default=0) <= now + ENDS_SOON]
    unused = [
        one.name for one, keys in living if any(key.used_at is None and now - key.created_at >= UNUSED for key in keys)
    ]
    return ending, unused, len(living)


def _issue(act: Act, one: Pep, *, days: int) -> NewPepKey:
    secret = render_pep_key(act.tx.random(32))
    expires_at = act.now + days * DAY
    store.peps.add_pep_key(
        act.tx, act.new_id("pk"), _digest(act.tx.keys, secret), pep=one.pep_id, expires_at=expires_at
    )
    return NewPepKey(one, secret, expires_at)


def _check_not_revoked(peps: Pep) -> None:
    if peps.revoked_at is not None:
        raise Conflict(f"the PEP `{peps.name}` is revoked", hint="create another PEP, with another name")


def _digest(keys: Keyring, key: str) -> bytes:
    return hmac.digest(keys.secret("nonce"), b"ostiary pep key\0" + key.encode(), "sha256")
