"""Authorities: created at first use, opened to sign, and rotated with overlap; the chain and the trust bundle."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, NotFound
from ostiaryd.certs.model.authority import (
    BACKDATED_S,
    SECOND,
    Authority,
    AuthorityId,
    AuthorityKind,
    AuthorityState,
    build_authority_certificate,
    build_responder_certificate,
    subject_of,
)
from ostiaryd.certs.model.certificate import make_serial
from ostiaryd.certs.model.keys import PrivateKey, encode_private_key, generate_key, parse_private_key
from ostiaryd.certs.store import authorities as store
from ostiaryd.ground.config import Config
from ostiaryd.ground.crypto.keyring import Keyring, RootKey
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry.flows import note

DAY_S = 86_400
LIFETIMES_S = {
    AuthorityKind.ROOT: 3650 * DAY_S,
    AuthorityKind.INTERMEDIATE: 365 * DAY_S,
    AuthorityKind.RESPONDER: 365 * DAY_S,
}
PATH_LENGTHS = {AuthorityKind.ROOT: 2, AuthorityKind.INTERMEDIATE: 0}
"""A root allows two: the next root, which it cross-certifies, and the intermediate of that."""


class Issuer(NamedTuple):
    """An authority with its key opened, and what every certificate of it has in common."""

    authority: Authority
    key: PrivateKey
    certificate: x509.Certificate
    chain: tuple[bytes, ...]
    """the certificate of the authority and those above, without the root"""


def ready_issuer(act: Act, *, config: Config) -> Issuer:
    """Return the active intermediate; create root and intermediate at the first use."""
    active = _active(act.tx, AuthorityKind.INTERMEDIATE)
    if active is None:
        root = _active(act.tx, AuthorityKind.ROOT) or create_root(act, config=config)
        active = create_intermediate(act, root, config)
    return open_issuer(act.tx, active, keys=act.tx.keys)


def open_issuer(reader: Reader, authority: Authority, *, keys: Keyring) -> Issuer:
    """Return an authority that can sign. Raises Conflict for one without a key or a certificate."""
    if authority.sealed is None or not authority.certificate:
        raise Conflict(f"the authority `{authority.subject}` cannot sign", hint="ostiary ca show")
    key = open_key(keys.derive(_PURPOSE), authority.authority_id, authority.sealed)
    return Issuer(authority, key, parsed(authority.certificate), chain_of(reader, authority))


def create_root(act: Act, *, config: Config, key_type: str = "", permitted: tuple[str, ...] = ()) -> Authority:
    """Create a root with a key of its own, which replaces the active root.

    The root before it certifies the key of the new one, so that clients that only have the old bundle go on.
    """
    before = _active(act.tx, AuthorityKind.ROOT)
    if before is not None:
        store.set_state(act.tx, before.authority_id, AuthorityState.RETIRED)
    return _create(act, AuthorityKind.ROOT, None, config, key_type=key_type, permitted=permitted, cross_issuer=before)


def create_intermediate(
    act: Act, root: Authority, config: Config, *, key_type: str = "", permitted: tuple[str, ...] = ()
) -> Authority:
    """Create an intermediate under a root, which replaces the active intermediate."""
    if (before := _active(act.tx, AuthorityKind.INTERMEDIATE)) is not None:
        store.set_state(act.tx, before.authority_id, AuthorityState.RETIRED)
    made = _create(act, AuthorityKind.INTERMEDIATE, root, config, key_type=key_type, permitted=permitted)
    _create(act, AuthorityKind.RESPONDER, made, config, key_type=key_type, permitted=())
    return made


def _create(
    act: Act,
    kind: AuthorityKind,
    parent: Authority | None,
    config: Config,
    *,
    key_type: str,
    permitted: tuple[str, ...],
    cross_issuer: Authority | None = None,
) -> Authority:
    id = AuthorityId(act.new_id("ca"))
    key = generate_key(key_type or config.certificate_key_type)
    subject = f"{config.trust_domain} {kind} {id[3:11]}{id[-8:]}"
    not_before, not_after = act.now - BACKDATED_S * SECOND, act.now + LIFETIMES_S[kind] * SECOND
    authority = Authority(
        authority_id=id,
        kind=kind,
        state=AuthorityState.ACTIVE,
        parent=None if parent is None else parent.authority_id,
        subject=subject,
        key_type=key_type or config.certificate_key_type,
        certificate=b"",
        sealed=_root_key(act.tx.keys).seal(encode_private_key(key), context=_context(id), random=act.tx.random),
        permitted=permitted,
        not_before=not_before,
        not_after=not_after if parent is None else min(not_after, parent.not_after),
        created_at=act.now,
    )
    issuer = None if parent is None else open_issuer(act.tx, parent, keys=act.tx.keys)
    authority = replace(authority, certificate=_certify(act, authority, key, issuer, config))
    if cross_issuer is not None and cross_issuer.sealed is not None:
        crossing = open_issuer(act.tx, cross_issuer, keys=act.tx.keys)
        until = min(authority.not_after, cross_issuer.not_after)
        cross = _certify(act, replace(authority, not_after=until), key, crossing, config)
        authority = replace(authority, cross_certificate=cross, parent=cross_issuer.authority_id)
    store.insert(act.tx, authority)
    created = (act.entry.detail or {}).get("created", [])
    note(act, object=act.entry.object or id, created=[*created, f"{kind} {id}"])
    return authority


def _certify(act: Act, authority: Authority, key: PrivateKey, issuer: Issuer | None, config: Config) -> bytes:
    if authority.kind is AuthorityKind.RESPONDER:
        assert issuer is not None
        return build_responder_certificate(
            subject=authority.subject,
            key=key.public_key(),
            issuer=issuer.certificate,
            issuer_key=issuer.key,
            serial=int(make_serial(act.now, act.tx.random(10)), 16),
            not_before=authority.not_before,
            not_after=authority.not_after,
        )
    return build_authority_certificate(
        subject=authority.subject,
        key=key.public_key(),
        issuer=subject_of(authority.subject) if issuer is None else issuer.certificate.subject,
        issuer_key=key if issuer is None else issuer.key,
        issuer_key_id=None if issuer is None else key_id(issuer.certificate),
        serial=int(make_serial(act.now, act.tx.random(10)), 16),
        not_before=authority.not_before,
        not_after=authority.not_after,
        path_length=PATH_LENGTHS[authority.kind] - (issuer is not None and authority.kind is AuthorityKind.ROOT),
        permitted=authority.permitted,
        trust_domain=config.trust_domain,
    )


def find_responder(reader: Reader, authority: Authority) -> Authority:
    """Return the OCSP responder of an intermediate. Raises NotFound."""
    for one in store.authorities(reader):
        if one.kind is AuthorityKind.RESPONDER and one.parent == authority.authority_id:
            return one
    raise NotFound(f"the authority `{authority.subject}` has no OCSP responder")


def key_id(certificate: x509.Certificate) -> x509.SubjectKeyIdentifier:
    """Return the key identifier of an authority."""
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value


def _active(reader: Reader, kind: AuthorityKind) -> Authority | None:
    of_kind = (one for one in store.authorities(reader) if one.kind is kind)
    return next((one for one in of_kind if one.state is AuthorityState.ACTIVE), None)


def find_authority(reader: Reader, id: str) -> Authority:
    """Return an authority. Raises NotFound."""
    if (authority := store.get(reader, id)) is None:
        raise NotFound("there is no such authority", hint="`ostiary ca show` lists all")
    return authority


def chain_of(reader: Reader, authority: Authority) -> tuple[bytes, ...]:
    """Return the certificates from an authority up to a root, which is left out; of a root that another root certified,
    the certificate by that root.
    """
    chain: list[bytes] = []
    while authority.kind is not AuthorityKind.ROOT:
        chain.append(authority.certificate)
        authority = find_authority(reader, authority.parent or "")
    if authority.cross_certificate is not None:
        chain.append(authority.cross_certificate)
    return tuple(chain)


def trust_bundle(reader: Reader) -> tuple[bytes, ...]:
    """Return the certificates of all roots that clients must trust, in DER, the active one first."""
    roots = [one for one in store.authorities(reader) if one.kind is AuthorityKind.ROOT and one.certificate]
    roots.sort(key=lambda one: (one.state is not AuthorityState.ACTIVE, -one.created_at))
    return tuple(one.certificate for one in roots)


def _root_key(keys: Keyring) -> RootKey:
    return RootKey(keys.derive(_PURPOSE), source="derived")


_PURPOSE = "certificate authority"


def _context(id: AuthorityId) -> bytes:
    return f"ostiary authority|{id}".encode()


@lru_cache(maxsize=64)
def open_key(secret: bytes, id: AuthorityId, sealed: bytes) -> PrivateKey:
    """Return the private key of an authority; `secret` is of the keyring."""
    return parse_private_key(RootKey(secret, source="derived").open(sealed, context=_context(id)))


@lru_cache(maxsize=64)
def parsed(der: bytes) -> x509.Certificate:
    """Return a certificate that this server has stored."""
    return x509.load_der_x509_certificate(der)


def encode_pem(certificates: Iterable[bytes]) -> bytes:
    """Return certificates in DER as PEM, one behind the other."""
    return b"".join(parsed(der).public_bytes(Encoding.PEM) for der in certificates)
