"""Operations on the issuers of a mount: roots, intermediates and imported certificates, with their keys.

The private key of an issuer is encrypted as stored secrets are, bound to its issuer. The certificate of a root is not a
holding, because the mount must outlive the agent that created the root.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from msgspec.structs import replace

from ostiary.protocol.certificate import load_pem_certificates
from ostiary.protocol.errors import Invalid, Malformed, Refused
from ostiaryd.certs import flows as certs
from ostiaryd.certs.model.authority import (
    BACKDATED_S,
    build_authority_certificate,
    check_constraints,
    check_permitted,
    read_begin,
    read_end,
    read_permitted,
)
from ostiaryd.certs.model.certificate import RevocationReason, make_serial, serial_text
from ostiaryd.certs.model.keys import (
    CheckedKey,
    PrivateKey,
    check_public_key,
    encode_private_key,
    encode_public_key,
    parse_private_key,
)
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId, Root
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.key_generation import take_key
from ostiaryd.secrets.flows.seal import open_value, seal_value
from ostiaryd.secrets.model.mount import MAX_TTL_S, Mount
from ostiaryd.secrets.model.pki import (
    DEFAULT_REF,
    MAX_CHAIN,
    MAX_ISSUERS,
    MAX_PATH_LENGTH,
    AuthorityOrder,
    PkiCertificate,
    PkiIssuer,
    build_subject,
    check_text,
    choose_key_type,
    find_chain,
)
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.model.sealing import Envelope, Place

OTHER_ISSUER = "use another issuer, or generate one; to make an issuer the default: POST config/issuers"
"""Hint for an issuer that cannot sign now. A new issuer does not become the default without a request."""
MAX_KEY_TEXT = 4096
"""Maximum number of characters of a private key in PEM. OpenSSL takes minutes to check a very long RSA key."""
_KEY_MARK = "PRIVATE KEY-----"
_KEY = re.compile(rf"-----BEGIN [A-Z ]*{_KEY_MARK}.*?-----END [A-Z ]*{_KEY_MARK}", re.DOTALL)


class IssuerNotFound(Refused):
    """The mount has no such issuer. Vault answers this error with the status 500, and so does this server."""

    code = "issuer_not_found"


class Signer(NamedTuple):
    """An issuer with its private key and its parsed certificate."""

    issuer: PkiIssuer
    key: PrivateKey
    certificate: x509.Certificate


class SignedCertificate(NamedTuple):
    """A new certificate, and the certificates of the authorities above it, beginning with its issuer."""

    certificate: PkiCertificate
    issuer: PkiIssuer
    chain: list[bytes]


def find_issuer(reader: Reader, mount: str, ref: str) -> PkiIssuer:
    """Return an issuer of a mount by its id or name. `default` stands for the issuer that was chosen as default;
    without a choice, for the first issuer with a certificate, preferably one with a private key. Raises IssuerNotFound
    if there is none.
    """
    every = store.pki.issuers(reader, mount)
    chosen = store.pki.settings(reader, mount).default_issuer if ref == DEFAULT_REF else ref
    issuer = next((one for one in every if chosen and chosen in (one.issuer_id, one.name)), None)
    if issuer is None and ref == DEFAULT_REF:
        ready = [one for one in every if one.certificate]
        issuer = next((one for one in ready if one.has_key), ready[0] if ready else None)
    if issuer is None:
        raise IssuerNotFound(
            f"unable to find PKI issuer for reference: {ref[:64]}", hint="list the issuers with LIST issuers"
        )
    return issuer


def chain_of(reader: Reader, issuer: PkiIssuer) -> list[bytes]:
    """Return the certificate of an issuer, followed by the certificates of the authorities above it in its mount; an
    empty list if the issuer has no certificate yet.
    """
    if not issuer.certificate:
        return []
    every = tuple(one.certificate for one in store.pki.issuers(reader, issuer.mount) if one.certificate)
    return [*find_chain(issuer.certificate, every)]


def open_signer(act: Act, mount: str, ref: str) -> Signer:
    """Return the issuer `ref` (an id, a name or `default`) with its private key. Raises IssuerNotFound for an unknown
    issuer; Invalid if the issuer cannot sign now (no certificate, no private key, revoked, or outside of its validity);
    Sealed while the secrets are sealed.
    """
    issuer = find_issuer(act.tx, mount, ref)
    if not issuer.certificate:
        raise Invalid("the issuer has no certificate yet", hint="write the certificate to intermediate/set-signed")
    if not issuer.has_key:
        raise Invalid("the issuer has no private key", hint="choose another issuer: LIST issuers")
    certificate = issuer.x509
    if issuer.revoked_at is not None:
        raise Invalid("the issuer is revoked", hint=OTHER_ISSUER)
    if act.now < read_begin(certificate):
        raise Invalid("the certificate of the issuer is not valid yet", hint=OTHER_ISSUER)
    if act.now >= read_end(certificate):
        raise Invalid("the certificate of the issuer has expired", hint=OTHER_ISSUER)
    return Signer(issuer, open_key(act.tx, issuer, keys=act.tx.keys), certificate)


def open_key(reader: Reader, issuer: PkiIssuer, *, keys: Keyring) -> PrivateKey:
    """Return the private key of an issuer. Raises Sealed while the secrets are sealed, Conflict if the stored key
    cannot be decrypted.
    """
    envelope = store.pki.key_of(reader, issuer.issuer_id)
    assert envelope is not None  # the caller has checked that the issuer has a key
    return parse_private_key(open_value(reader, envelope, _place(issuer.issuer_id), keys=keys))


def _seal_key(tx: Tx, issuer_id: str, key: PrivateKey) -> Envelope:
    return seal_value(tx, encode_private_key(key), _place(issuer_id))


def _place(issuer_id: str) -> Place:
    return "pki", issuer_id, 1


def generate_root(act: Act, mount: str, order: AuthorityOrder, *, generated: PrivateKey | None) -> SignedCertificate:
    """Create an issuer with a new key and a self-signed certificate; return the certificate. `generated`: the RSA key
    that the server generated before the transaction, or None (see `take_key`). Raises Invalid for a member of `order`
    that is not valid, KeyNeeded if an RSA key must be generated first.
    """
    act.check_granting()
    key = take_key(act, choose_key_type(order.key_type, order.key_bits), generated)
    subject = subject_of(order)
    serial = make_new_serial(act)
    longest = find_max_ttl(act, mount)
    not_after = (act.now + min(order.ttl or longest, longest) * SECOND) // SECOND * SECOND
    der = build_authority_certificate(
        subject=subject,
        key=key.public_key(),
        issuer=subject,
        issuer_key=key,
        issuer_key_id=None,
        serial=int(serial, 16),
        not_before=choose_start(act.now),
        not_after=not_after,
        path_length=check_path_length(None, order.max_path_length),
        permitted=parse_domains(order),
    )
    issuer = _add_issuer(act, mount, order.issuer_name, encode_public_key(key.public_key()), der, key)
    certificate = PkiCertificate(
        serial=serial,
        mount=mount,
        issuer=issuer.issuer_id,
        lease=None,
        agent=None,
        task=None,
        der=der,
        not_after=not_after,
        issued_at=act.now,
    )
    store.pki.insert(act.tx, certificate)
    registry.fill_entry(act, object=f"{mount}/root/generate", issuer=issuer.issuer_id, serial=serial)
    return SignedCertificate(certificate, issuer, [der])


def request_intermediate(
    act: Act, mount: str, order: AuthorityOrder, *, generated: PrivateKey | None
) -> tuple[PkiIssuer, x509.CertificateSigningRequest]:
    """Create an issuer with a new key and no certificate yet; return the issuer and its certificate request.
    `generated`: the RSA key that the server generated before the transaction, or None (see `take_key`). Raises Invalid
    for a member of `order` that is not valid, KeyNeeded if an RSA key must be generated first.
    """
    act.check_granting()
    key = take_key(act, choose_key_type(order.key_type, order.key_bits), generated)
    csr = certs.sign_request(subject_of(order), key)
    issuer = _add_issuer(act, mount, order.issuer_name, encode_public_key(key.public_key()), b"", key)
    registry.fill_entry(act, object=f"{mount}/intermediate/generate", issuer=issuer.issuer_id)
    return issuer, csr


def _add_issuer(
    act: Act, mount: str, name: str, public_key: bytes, certificate: bytes, key: PrivateKey | None
) -> PkiIssuer:
    checked = check_key(act, public_key)
    _check_name(act, mount, name)
    if len(store.pki.issuers(act.tx, mount)) >= MAX_ISSUERS:
        raise Invalid(f"the mount has {MAX_ISSUERS} issuers, which is the limit", hint="delete an issuer")
    issuer = PkiIssuer(
        issuer_id=act.new_id("is"),
        mount=mount,
        name=name,
        key_type=checked.key_type,
        key_digest=checked.digest,
        certificate=certificate,
        has_key=key is not None,
        created_at=act.now,
    )
    sealed = None if key is None else _seal_key(act.tx, issuer.issuer_id, key)
    store.pki.insert_issuer(act.tx, issuer, sealed)
    return issuer


def _check_name(act: Act, mount: str, name: str) -> None:
    if name and (not name.isascii() or not name.replace("-", "").replace("_", "").replace(".", "").isalnum()):
        raise Invalid("the name of an issuer may have only letters, digits, dots, hyphens and underscores")
    if len(name) > 64 or name == DEFAULT_REF:
        raise Invalid(f"the name of an issuer may have at most 64 characters, and must not be `{DEFAULT_REF}`")
    if name and any(name in (one.name, one.issuer_id) for one in store.pki.issuers(act.tx, mount)):
        raise Invalid("issuer name already in use")


def rename_issuer(act: Act, mount: str, ref: str, name: str | None) -> PkiIssuer:
    """Set the name of the issuer `ref` (an id, a name or `default`), and return the issuer; None leaves the name
    unchanged, an empty name removes it. Raises IssuerNotFound if there is no such issuer, Invalid for a malformed name,
    or a name that another issuer has.
    """
    issuer = find_issuer(act.tx, mount, ref)
    if name is None or name == issuer.name:
        return issuer
    _check_name(act, mount, name)
    renamed = replace(issuer, name=name)
    store.pki.update_issuer(act.tx, renamed)
    return renamed


def choose_default(act: Act, mount: str, ref: str) -> PkiIssuer:
    """Make an issuer the default issuer of its mount, and return it. Raises IssuerNotFound if there is no such
    issuer.
    """
    issuer = find_issuer(act.tx, mount, ref)
    store.pki.put_settings(act.tx, mount, replace(store.pki.settings(act.tx, mount), default_issuer=issuer.issuer_id))
    return issuer


def revoke_issuer(act: Act, mount: str, ref: str) -> PkiIssuer:
    """Revoke an issuer, and return it. The issuer signs no further certificates, and its revocation list contains all
    its certificates. An issuer that is revoked already, or has no certificate yet, is returned unchanged. Raises
    IssuerNotFound if there is no such issuer.
    """
    issuer = find_issuer(act.tx, mount, ref)
    if issuer.revoked_at is not None or not issuer.certificate:
        return issuer
    revoked = replace(issuer, revoked_at=act.now)
    store.pki.update_issuer(act.tx, revoked)
    serial = serial_text(issuer.x509.serial_number)
    if (own := store.pki.get(act.tx, mount, serial)) is not None:
        end_certificate(act, own)
    registry.fill_entry(act, object=f"{mount}/issuer/{issuer.issuer_id}", serial=serial)
    return revoked


def delete_issuers(act: Act, mount: str, ref: str | None) -> None:
    """Delete an issuer with its key, or, if `ref` is None, all issuers of a mount. Do nothing if there is none. Raises
    IssuerNotFound if `ref` is `default`, and the issuers of the mount have no certificate yet.

    The certificates of a deleted issuer stay in the mount's list of certificates, but no revocation list contains them
    any more.
    """
    every = store.pki.issuers(act.tx, mount)
    chosen = every if ref is None else [one for one in every if ref in (one.issuer_id, one.name)]
    if ref == DEFAULT_REF and every:
        chosen = [find_issuer(act.tx, mount, ref)]
    for one in chosen:
        store.pki.delete_issuer(act.tx, one.issuer_id)
    registry.fill_entry(act, object=f"{mount}/issuers", deleted=[one.issuer_id for one in chosen])


def import_bundle(act: Act, mount: str, text: str, *, needs_key: bool) -> dict[str, str]:
    """Store the certificates of authorities, and at most one private key, from a text in PEM. Return the id of each
    certificate's issuer, mapped to the id of its private key: the same id, or an empty text if the mount has no private
    key for the certificate.

    A certificate for the key of an issuer that waits for its certificate becomes the certificate of that issuer.
    `needs_key`: refuse a bundle in which no certificate is for a private key of the mount. Raises Malformed for a
    bundle that cannot be read, Invalid for a bundle that is too long, has an unfit key or certificate, or lacks a
    needed key.
    """
    act.check_granting()
    bundle_key = _read_key(text)
    certificates = load_pem_certificates(text)
    if len(certificates) > MAX_CHAIN:
        raise Invalid(f"the bundle has more than {MAX_CHAIN} certificates")
    imported = list(dict.fromkeys(_import_certificate(act, mount, certificate) for certificate in certificates))
    if bundle_key is not None:
        _import_key(act, mount, bundle_key, imported)
    has_key = {one.issuer_id: one.has_key for one in store.pki.issuers(act.tx, mount)}
    mapping = {id: id if has_key[id] else "" for id in imported}
    if needs_key and not any(mapping.values()):
        raise Invalid(
            "no certificate is for a private key of the mount", hint="make a private key with intermediate/generate"
        )
    registry.fill_entry(act, object=f"{mount}/issuers", imported=list(mapping))
    return mapping


def _read_key(text: str) -> PrivateKey | None:
    """Return the private key in a text in PEM; None if there is none. Raises Malformed or Invalid for several keys, or
    for a key that is too long, cannot be read or cannot sign certificates.
    """
    if text.count(_KEY_MARK) > 2:
        raise Invalid("the bundle has more than one private key")
    if (match := _KEY.search(text)) is None:
        return None
    if len(match[0]) > MAX_KEY_TEXT:
        raise Invalid(f"the private key is over {MAX_KEY_TEXT} characters", hint="use an RSA key of at most 4096 bits")
    try:
        key = load_pem_private_key(match[0].encode(), None)
    except TypeError:
        raise Malformed("the private key of the bundle has a password", hint="send it without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed(
            "the private key of the bundle is damaged, or has an unknown algorithm",
            hint="send a private key in PEM, RSA, ECDSA or Ed25519",
        ) from None
    if not isinstance(key, PrivateKey):
        raise Invalid("the private key has an algorithm with which this server cannot sign certificates")
    return key


def _import_certificate(act: Act, mount: str, certificate: x509.Certificate) -> str:
    """Store the certificate of an authority, unless the mount has it already; return the id of its issuer."""
    check_authority(certificate)
    der, public_key = certificate.public_bytes(Encoding.DER), public_key_of(certificate)
    digest = check_key(act, public_key).digest
    of_key = [one for one in store.pki.issuers(act.tx, mount) if one.key_digest == digest]
    if (stored := next((one for one in of_key if one.certificate == der), None)) is not None:
        return stored.issuer_id
    check_constraints(certificate)
    if (waiting := next((one for one in of_key if not one.certificate), None)) is not None:
        store.pki.update_issuer(act.tx, replace(waiting, certificate=der))
        return waiting.issuer_id
    holder = next((one for one in of_key if one.has_key), None)
    key = None if holder is None else open_key(act.tx, holder, keys=act.tx.keys)
    return _add_issuer(act, mount, "", public_key, der, key).issuer_id


def _import_key(act: Act, mount: str, key: PrivateKey, imported: list[str]) -> None:
    """Store a private key for each issuer of the mount that has its public key. Raises Invalid if no such issuer is in
    `imported`.
    """
    digest = check_public_key(encode_public_key(key.public_key())).digest
    of_key = [one for one in store.pki.issuers(act.tx, mount) if one.key_digest == digest]
    if not any(one.issuer_id in imported for one in of_key):
        raise Invalid("the private key belongs to no certificate in the bundle")
    for one in of_key:
        if not one.has_key:
            store.pki.put_key(act.tx, one.issuer_id, _seal_key(act.tx, one.issuer_id, key))


def check_authority(certificate: x509.Certificate) -> x509.BasicConstraints:
    """Check that a certificate is the certificate of an authority, with a subject and a subject key identifier; return
    its basic constraints. Raises Invalid otherwise.
    """
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        _ = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound as error:
        raise Invalid(f"the certificate of an authority must have the extension {error.oid._name}") from None
    if not basic.ca:
        raise Invalid("the certificate is not the certificate of an authority (`CA:TRUE`)")
    if not list(certificate.subject):
        raise Invalid("the certificate of an authority must have a subject")
    read_permitted(certificate)
    return basic


def public_key_of(certificate: x509.Certificate) -> bytes:
    """Return the public key of a certificate in DER (SubjectPublicKeyInfo)."""
    return encode_public_key(certificate.public_key())  # type: ignore[arg-type]


def find_max_ttl(act: Act, mount: str) -> int:
    """Return the maximum lifetime of the certificates of a mount, in seconds."""
    return read_mount(act, mount).max_ttl or MAX_TTL_S


def read_mount(act: Act, path: str) -> Mount:
    """Return the record of the PKI mount `path`. The caller must have checked in this transaction that the mount is
    enabled.
    """
    mount = store.mounts.find(act.tx, [path])
    assert mount is not None  # its accessor was checked in this act
    return mount


def choose_start(now: int, earlier_s: int = BACKDATED_S) -> int:
    """Return the start of a certificate's validity in microseconds: `earlier_s` seconds before `now` (microseconds,
    rounded down to a second), so that clients with slow clocks accept the certificate.
    """
    return now // SECOND * SECOND - earlier_s * SECOND


def make_new_serial(act: Act) -> str:
    """Return an unused serial number: the time, and 80 random bits."""
    return make_serial(act.now, act.tx.random(10))


def holding_of(serial: str) -> str:
    """Return the id of a certificate's holding (the record with which the certificate ends together with its agent), by
    the certificate's serial number.
    """
    return f"mc_{serial}"


def subject_of(order: AuthorityOrder) -> x509.Name:
    """Return the subject that the request for an authority states. Raises Invalid for a malformed attribute."""
    return build_subject(check_text(order.common_name), order)


def parse_domains(order: AuthorityOrder) -> tuple[str, ...]:
    """Return the DNS names that a new authority may certify; empty: all names. Raises Invalid for a malformed name."""
    return check_permitted([f"dns:{one}" for one in order.permitted_dns_domains])


def check_key(act: Act, public_key: bytes) -> CheckedKey:
    """Return the properties of a key. Raises BadKey for a weak, bad or compromised key."""
    checked = check_public_key(public_key)
    certs.check_not_blocked(act.tx, checked, holder="")
    return checked


def check_path_length(above: int | None, requested: int) -> int | None:
    """Return the path length of a new authority: the maximum number of authorities below it; None: no limit. `above` is
    the path length of its issuer (None: no limit), `requested` the requested one (-1: as many as the issuer permits).
    Raises Invalid if a limit is out of range, or higher than the issuer permits.
    """
    if not -1 <= requested <= MAX_PATH_LENGTH:
        raise Invalid(f"`max_path_length` must be -1 to {MAX_PATH_LENGTH}")
    longest = None if above is None else above - 1
    if longest is not None and (longest < 0 or requested > longest):
        raise Invalid(f"the issuer permits at most {above} authorities below it")
    return longest if requested < 0 else requested


def end_certificate(act: Act, certificate: PkiCertificate) -> PkiCertificate:
    """Revoke a certificate, unless it is revoked already; return the revoked certificate."""
    if certificate.revoked_at is not None:
        return certificate
    why = RevocationReason.UNSPECIFIED.value
    if certificate.agent is None:
        store.pki.revoke(act.tx, certificate.serial)
    else:
        # guards need no message, because guards do not accept these certificates
        stopped = frozenset({AgentId(certificate.agent)})
        registry.end_holdings(act, Root.HOLDING, holding_of(certificate.serial), why=why, stopped=stopped)
    return replace(certificate, revoked_at=act.now, why=why)
