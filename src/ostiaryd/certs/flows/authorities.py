"""Certificate authorities: creation at first use, signing keys, chains, and the trust bundle."""

from __future__ import annotations

import asyncio
import logging
from binascii import b2a_base64
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import NamedTuple

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID
from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, NotFound, Unavailable
from ostiaryd.certs import store
from ostiaryd.certs.model.authority import (
    BACKDATED_S,
    SECOND,
    Authority,
    AuthorityId,
    AuthorityKind,
    AuthorityState,
    build_authority_certificate,
    build_responder_certificate,
    hash_for,
    subject_of,
)
from ostiaryd.certs.model.certificate import make_serial
from ostiaryd.certs.model.keys import (
    PrivateKey,
    PublicKey,
    encode_private_key,
    generate_keys,
    key_type_of,
    name_key_type,
    parse_private_key,
)
from ostiaryd.ground.config import Config
from ostiaryd.ground.crypto.hsm import ANSWER_S, GENERATION_S, Hsm, HsmKey
from ostiaryd.ground.crypto.keyring import Keyring, RootKey
from ostiaryd.ground.database import Reader
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry.flows import fill_entry
from ostiaryd.trust import flows as trust

log = logging.getLogger(__name__)
DAY_S = 86_400
MAX_DOMAIN_SHOWN = 30
"""maximum number of characters of the trust domain that the name of an authority shows; a common name has at most 64"""
LIFETIMES_S = {
    AuthorityKind.ROOT: 3650 * DAY_S,
    AuthorityKind.INTERMEDIATE: 365 * DAY_S,
    AuthorityKind.RESPONDER: 365 * DAY_S,
}
PATH_LENGTHS = {AuthorityKind.ROOT: 2, AuthorityKind.INTERMEDIATE: 0}
"""Maximum number of authorities below an authority in a chain (RFC 5280 path length). A root needs two: the next root,
which the present root cross-certifies, and the intermediate of the next root.
"""


class Issuer(NamedTuple):
    """An authority with its private key, and the chain for the certificates that the authority issues."""

    authority: Authority
    key: PrivateKey
    certificate: x509.Certificate
    chain: tuple[bytes, ...]
    """the certificate of the authority, followed by the certificates of the authorities above, without the root"""


def ready_issuer(act: Act, *, config: Config) -> Issuer:
    """Return the active intermediate with its key. If there is none, create the intermediate, and the root if there is
    no root. If the previous intermediate was revoked, the new intermediate is limited to the same names. Raises
    Conflict if the key of the root is not on this server, Unavailable if the HSM fails.
    """
    active = store.authorities.active(act.tx, AuthorityKind.INTERMEDIATE)
    if active is None:
        root, revoked = store.authorities.active(act.tx, AuthorityKind.ROOT), find_unreplaced(act.tx)
        if root is not None:
            _check_key_is_here(root)  # otherwise each request would leave new keys in the HSM
        keys = make_keys(act.tx.keys, config.certificate_key_type, 3 if root is None else 2, within_s=ANSWER_S)
        root = root or create_root(act, keys, config=config)
        active = create_intermediate(
            act, root, keys, config=config, permitted=() if revoked is None else revoked.permitted
        )
    return open_issuer(act.tx, active, keys=act.tx.keys)


def open_issuer(reader: Reader, authority: Authority, *, keys: Keyring) -> Issuer:
    """Return an authority with its private key and chain. Raises Conflict if this server does not have the key or the
    certificate of the authority, NotFound if the HSM does not contain the key, and Unavailable if the HSM does not
    answer or has another key in its place.
    """
    if not authority.has_key or not authority.certificate:
        lack = "certificate yet" if authority.has_key else "key on this server"
        raise Conflict(
            f"the authority `{authority.subject}` cannot sign: it has no {lack}",
            hint="see the authorities with `ostiary ca show`",
        )
    key = open_sealed(authority, keys=keys)
    return Issuer(authority, key, parsed(authority.certificate), chain_of(reader, authority))


def open_sealed(authority: Authority, *, keys: Keyring) -> PrivateKey:
    """Return the private key of an authority, decrypted or from the HSM. Raises NotFound if the HSM does not contain
    the key, Unavailable if the HSM cannot be reached, or has another key in its place.
    """
    if authority.hsm_key is not None:
        if keys.hsm is None:
            raise Unavailable(
                f"the key of the authority `{authority.subject}` is in an HSM, and the configuration names no HSM",
                hint="set `hsm_module`, `hsm_token` and `hsm_pin_file`",
            )
        key = keys.hsm.find(authority.hsm_key)
        if not _is_key_of(authority, key.public_key()):
            raise _foreign_key(authority)
        return key
    assert authority.sealed is not None
    return open_key(keys.derive(_PURPOSE), authority.authority_id, authority.sealed)


def _is_key_of(authority: Authority, key: PublicKey) -> bool:
    """Return whether a key is the key in the certificate of the authority. While the authority has no certificate, only
    the type of its key is known.
    """
    if not authority.certificate:
        return name_key_type(key) == authority.key_type
    return key == parsed(authority.certificate).public_key()


def make_keys(keys: Keyring, key_type: str, count: int = 3, *, within_s: float = GENERATION_S) -> list[PrivateKey]:
    """Generate `count` new keys: if an HSM is configured, in the HSM, each within `within_s` seconds. The default is
    three keys: for a root, for an intermediate, and for the intermediate's OCSP responder.

    RSA keys take seconds, so call this function before an act, not within an act. Raises Invalid for an unsupported
    type of key, Unavailable if the HSM fails, Conflict if the HSM would allow a private key to be read. After a
    failure, the keys that were already generated are deleted from the HSM.
    """
    if keys.hsm is None:
        return generate_keys(key_type, count)
    made: list[HsmKey] = []
    try:
        for _ in range(count):
            made.append(keys.hsm.generate(key_type, within_s=within_s))
    except Exception:
        _destroy(keys.hsm, [key.key_id for key in made])
        raise
    return [*made]


def _destroy(hsm: Hsm, key_ids: Iterable[str]) -> None:
    try:
        for key_id in key_ids:
            hsm.destroy(key_id)
    except Unavailable as error:
        log.warning("the HSM has keys that no authority uses, and their deletion failed: %s", error.message)


def find_unreplaced(reader: Reader) -> Authority | None:
    """Return the intermediate that was revoked last, if no intermediate has replaced it; None if an intermediate is
    active, or if none was revoked.
    """
    if store.authorities.active(reader, AuthorityKind.INTERMEDIATE) is not None:
        return None
    intermediates = (one for one in store.authorities.authorities(reader) if one.kind is AuthorityKind.INTERMEDIATE)
    revoked = (one for one in intermediates if one.state is AuthorityState.REVOKED)
    return max(revoked, key=lambda one: one.revoked_at or 0, default=None)


@asynccontextmanager
async def new_keys(
    world: World, key_type: str, count: int = 3, *, within_s: float = GENERATION_S
) -> AsyncIterator[list[PrivateKey]]:
    """Provide new keys for acts on authorities. When the block ends, delete from the HSM those of the new keys, and of
    the keys that authorities used before, that no authority uses any more. `within_s` is the time in seconds that the
    HSM has for each key.

    If the task is cancelled, no key is deleted, because the act that uses the keys may still be committed.
    """
    before = _hsm_keys(world)
    keys = await asyncio.to_thread(make_keys, world.keys, key_type, count, within_s=within_s)
    try:
        yield keys.copy()
    except Exception:
        await _destroy_unused(world, before, keys)
        raise
    await _destroy_unused(world, before, keys)


async def _destroy_unused(world: World, before: set[str], keys: Iterable[PrivateKey]) -> None:
    made = {key.key_id for key in keys if isinstance(key, HsmKey)}
    if world.keys.hsm is not None and (unused := (made | before) - _hsm_keys(world)):
        await asyncio.to_thread(_destroy, world.keys.hsm, unused)


def check_hsm(reader: Reader, hsm: Hsm, *, keys: Keyring) -> int:
    """Sign with the key of each authority whose key is in the HSM; return the number of these keys. Raises Unavailable
    if the HSM does not answer or has another key; NotFound if a key is missing.
    """
    hsm.check()
    in_hsm = [one for one in store.authorities.authorities(reader) if one.hsm_key is not None]
    for one in in_hsm:
        if not sign_request(subject_of(one.subject), open_sealed(one, keys=keys)).is_signature_valid:
            raise _foreign_key(one)
    return len(in_hsm)


def _foreign_key(authority: Authority) -> Unavailable:
    return Unavailable(
        f"the key in the HSM is not the key of the authority `{authority.subject}`",
        hint="restore the token of the HSM from its backup",
    )


def sign_request(subject: x509.Name, key: PrivateKey) -> x509.CertificateSigningRequest:
    """Return a signed certificate request (PKCS #10) for an intermediate."""
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject)
    csr = csr.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return csr.sign(key, hash_for(key))


def _hsm_keys(world: World) -> set[str]:
    return {one.hsm_key for one in store.authorities.authorities(world.db.read()) if one.hsm_key is not None}


def create_root(act: Act, keys: list[PrivateKey], *, config: Config, active_from: int | None = None) -> Authority:
    """Create a root, and return it. If the key of the active root is on this server, the active root also
    cross-certifies the new root. Removes one key from `keys`.

    `active_from`: the time (microseconds) until which the new root is pending; None: it replaces the active root at
    once.
    """
    before = store.authorities.active(act.tx, AuthorityKind.ROOT)
    if active_from is None and before is not None:
        store.authorities.set_state(act.tx, before.authority_id, AuthorityState.RETIRED)
    key, root = _prepare(act, AuthorityKind.ROOT, None, keys, config=config)
    if active_from is not None:
        root = replace(root, state=AuthorityState.PENDING, active_from=active_from)
    root = replace(root, certificate=_certify(act, root, key, None, config))
    if before is not None and before.has_key:
        until = min(root.not_after, before.not_after)
        crossing = open_issuer(act.tx, before, keys=act.tx.keys)
        cross = _certify(act, replace(root, not_after=until), key, crossing, config)
        root = replace(root, cross_certificate=cross, parent=before.authority_id)
    return _insert(act, root)


def create_intermediate(
    act: Act, root: Authority, keys: list[PrivateKey], *, config: Config, permitted: tuple[str, ...] = ()
) -> Authority:
    """Create an intermediate under `root`, which replaces the active intermediate, and its OCSP responder; return the
    intermediate. Removes two keys from `keys`.

    `permitted`: the names to which the intermediate is limited; empty: no limit. Raises Conflict if the key of the root
    is not on this server.
    """
    _check_key_is_here(root)
    if (before := store.authorities.active(act.tx, AuthorityKind.INTERMEDIATE)) is not None:
        store.authorities.set_state(act.tx, before.authority_id, AuthorityState.RETIRED)
    key, made = _prepare(act, AuthorityKind.INTERMEDIATE, root, keys, config=config, permitted=permitted)
    issuer = open_issuer(act.tx, root, keys=act.tx.keys)
    made = _insert(act, replace(made, certificate=_certify(act, made, key, issuer, config)))
    create_responder(act, made, keys, config=config)
    return made


def _check_key_is_here(root: Authority) -> None:
    """Check that the key of a root is on this server. Raises Conflict otherwise."""
    if not root.has_key:
        hint = "create a request for the owner of the root: ostiary ca request --write FILE"
        raise Conflict(f"the key of the root `{root.subject}` is not on this server", hint=hint, code="external_root")


def create_responder(act: Act, intermediate: Authority, keys: list[PrivateKey], *, config: Config) -> None:
    """Create the OCSP responder of an intermediate, with one of `keys`, which is removed from the list."""
    key, responder = _prepare(act, AuthorityKind.RESPONDER, intermediate, keys, config=config)
    issuer = open_issuer(act.tx, intermediate, keys=act.tx.keys)
    _insert(act, replace(responder, certificate=_certify(act, responder, key, issuer, config)))


def request_intermediate(act: Act, keys: list[PrivateKey], *, config: Config) -> Authority:
    """Create a pending intermediate, which an external root must certify, and return it. Deletes an earlier pending
    intermediate.
    """
    for one in store.authorities.authorities(act.tx):
        if one.kind is AuthorityKind.INTERMEDIATE and one.state is AuthorityState.PENDING:
            store.authorities.delete(act.tx, one.authority_id)
    _, made = _prepare(act, AuthorityKind.INTERMEDIATE, None, keys, config=config)
    return _insert(act, replace(made, state=AuthorityState.PENDING))


def _prepare(
    act: Act,
    kind: AuthorityKind,
    parent: Authority | None,
    keys: list[PrivateKey],
    *,
    config: Config,
    permitted: tuple[str, ...] = (),
) -> tuple[PrivateKey, Authority]:
    """Remove a key from `keys`; return the key, and a new active authority with this key and without a certificate."""
    id, key = AuthorityId(act.new_id("ca")), keys.pop()
    not_after = act.now + LIFETIMES_S[kind] * SECOND
    authority = Authority(
        authority_id=id,
        kind=kind,
        state=AuthorityState.ACTIVE,
        parent=None if parent is None else parent.authority_id,
        subject=f"{config.trust_domain[:MAX_DOMAIN_SHOWN]} {kind} {id[3:11]}{id[-8:]}",
        key_type=key_type_of(key.public_key()),
        certificate=b"",
        sealed=None if isinstance(key, HsmKey) else _seal(act, id, key),
        hsm_key=key.key_id if isinstance(key, HsmKey) else None,
        permitted=permitted,
        not_before=act.now - BACKDATED_S * SECOND,
        not_after=not_after if parent is None else min(not_after, parent.not_after),
        created_at=act.now,
    )
    return key, authority


def _seal(act: Act, id: AuthorityId, key: PrivateKey) -> bytes:
    return act.tx.keys.value_key(_PURPOSE).seal(encode_private_key(key), context=_context(id), random=act.tx.random)


def _insert(act: Act, authority: Authority) -> Authority:
    store.authorities.insert(act.tx, authority)
    if authority.kind is AuthorityKind.ROOT:
        trust.add_own_anchor(act, authority.authority_id, authority.certificate)
    created = (act.entry.detail or {}).get("created", [])
    name = f"{authority.kind} {authority.authority_id}"
    fill_entry(act, object=act.entry.object or authority.authority_id, created=[*created, name])
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
        subject=subject_of(authority.subject),
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
        locations=() if issuer is None else _locations(config.status_base, issuer.authority.authority_id),
    )


def _locations(status_url: str, issuer: AuthorityId) -> tuple[x509.ExtensionType, ...]:
    """Return the X.509 extensions with the URLs of the issuer's certificate and of the issuer's revocation list, for
    the certificates of authorities.
    """
    certificate, crl = (x509.UniformResourceIdentifier(f"{status_url}/ca/{issuer}{part}") for part in (".crt", "/crl"))
    point = x509.DistributionPoint(full_name=[crl], relative_name=None, reasons=None, crl_issuer=None)
    issuers = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, certificate)
    return x509.AuthorityInformationAccess([issuers]), x509.CRLDistributionPoints([point])


def find_responder(reader: Reader, authority: Authority) -> Authority:
    """Return the OCSP responder of an intermediate. Raises NotFound if there is none."""
    for one in store.authorities.authorities(reader):
        if one.kind is AuthorityKind.RESPONDER and one.parent == authority.authority_id:
            return one
    raise NotFound(f"the authority `{authority.subject}` has no OCSP responder")


def key_id(certificate: x509.Certificate) -> x509.SubjectKeyIdentifier:
    """Return the subject key identifier of an authority's certificate."""
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value


def find_authority(reader: Reader, id: str) -> Authority:
    """Return an authority by its id. Raises NotFound if there is none."""
    if (authority := store.authorities.get(reader, id)) is None:
        raise NotFound("authority not found", hint="list the authorities with `ostiary ca show`")
    return authority


def chain_of(reader: Reader, authority: Authority) -> tuple[bytes, ...]:
    """Return the certificates in DER from an authority up to its root, without the root. If an earlier root has
    cross-certified the root, the cross-certificate is the last.
    """
    chain: list[bytes] = []
    while authority.kind is not AuthorityKind.ROOT:
        chain.append(authority.certificate)
        authority = find_authority(reader, authority.parent or "")
    if authority.cross_certificate is not None:
        chain.append(authority.cross_certificate)
    return tuple(chain)


_PURPOSE = "certificate authority"


def _context(id: AuthorityId) -> bytes:
    return f"certificate authority|{id}".encode()


@lru_cache(maxsize=64)
def open_key(secret: bytes, id: AuthorityId, sealed: bytes) -> PrivateKey:
    """Decrypt and return the private key of an authority. `secret` is derived from the keyring; `sealed` is the
    encrypted key.
    """
    return parse_private_key(RootKey(secret, source="derived").open(sealed, context=_context(id)))


@lru_cache(maxsize=64)
def parsed(der: bytes) -> x509.Certificate:
    """Return the parsed form of a certificate (DER) that this server has stored. The result is cached."""
    return x509.load_der_x509_certificate(der)


@lru_cache(maxsize=256)
def encode_pem(certificates: tuple[bytes, ...]) -> bytes:
    """Return certificates in DER as concatenated PEM. Cached, since many certificates have the same chain."""
    return b"".join(map(encode_certificate, certificates))


def encode_certificate(der: bytes) -> bytes:
    """Return one certificate in DER as PEM."""
    text = b2a_base64(der, newline=False)
    lines = b"\n".join([text[begin : begin + 64] for begin in range(0, len(text), 64)])
    return b"-----BEGIN CERTIFICATE-----\n%b\n-----END CERTIFICATE-----\n" % lines
