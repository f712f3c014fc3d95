"""Transit keys: encryption and HMACs in the text forms of Vault, and the export and backup of keys.

A ciphertext, a signature or an HMAC has the form `vault:vN:BASE64`, where N is the version of the key.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Invalid, Refused
from ostiaryd.certs.model.keys import PrivateKey, encode_private_key
from ostiaryd.secrets.model.request import MAX_DURATION_S

MOUNT = "transit"
"""the mount whose keys are stored under their name without the path of a mount"""
NONCE_BYTES = 12
KEY_BYTES = {"aes128-gcm96": 16, "aes256-gcm96": 32, "chacha20-poly1305": 32, "hmac": 32, "ed25519": 32}
"""Number of bytes of the key material, by key type, for types whose material is random bytes."""
AEAD = frozenset({"aes128-gcm96", "aes256-gcm96", "chacha20-poly1305"})
CURVES: dict[str, type[ec.SECP256R1] | type[ec.SECP384R1] | type[ec.SECP521R1]] = {
    "ecdsa-p256": ec.SECP256R1,
    "ecdsa-p384": ec.SECP384R1,
    "ecdsa-p521": ec.SECP521R1,
}
RSA_BITS = {"rsa-2048": 2048, "rsa-3072": 3072, "rsa-4096": 4096}
SIGNING = frozenset({"ed25519", *CURVES, *RSA_BITS})
ENCRYPTING = frozenset({*AEAD, *RSA_BITS})
"""Types whose keys encrypt; a key of a type in `AEAD` can be derived, and binds associated data."""
KINDS = frozenset({*KEY_BYTES, *CURVES, *RSA_BITS})
MAX_CURVE_BYTES, MAX_RSA_BYTES = 256, 2500
"""Maximum number of bytes of the material of keys in PKCS #8. Reading a long key of another algorithm can take
minutes.
"""
EXPORTS = ("encryption-key", "signing-key", "hmac-key")
"""The uses for which the material of a key can be exported."""
PUBLIC = "public-key"
"""the export of the public keys, which needs no permission to export the key"""
BACKUP_FORMAT = "ostiary-transit-key-1"
HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "sha2-224": hashes.SHA224,
    "sha2-256": hashes.SHA256,
    "sha2-384": hashes.SHA384,
    "sha2-512": hashes.SHA512,
    "sha3-224": hashes.SHA3_224,
    "sha3-256": hashes.SHA3_256,
    "sha3-384": hashes.SHA3_384,
    "sha3-512": hashes.SHA3_512,
}
SHORTEST_PERIOD_S = 3600
"""Minimum seconds between two automatic rotations of a key."""
MAX_VERSION_DIGITS = 9
MAX_VERSION = 10**MAX_VERSION_DIGITS
TEXT = re.compile(rf"vault:v([1-9][0-9]{{0,{MAX_VERSION_DIGITS - 1}}}):([A-Za-z0-9+/=_-]+)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class TransitKey(msgspec.Struct, frozen=True, kw_only=True):
    """A transit key without its material. `min_encryption_version`: 0 stands for the latest version."""

    name: str
    kind: str
    latest_version: int
    min_decryption_version: int
    min_encryption_version: int
    deletion_allowed: bool
    created_at: int
    min_available_version: int = 0
    """oldest version that was kept by the last trim; 0 before the first trim"""
    is_exportable: bool = False
    allows_backup: bool = False
    auto_rotate_s: int = 0
    """seconds from a new version to the next automatic rotation; 0: no automatic rotations"""
    rotates_at: int | None = None
    is_derived: bool = False
    """true if each context has a key of its own, which is derived from the material"""
    is_convergent: bool = False
    """true if the same plain text has the same ciphertext, in the same context and with the same associated data"""
    is_imported: bool = False
    allows_rotation: bool = False
    """true if the server may make versions of an imported key"""

    @property
    def oldest_version(self) -> int:
        """Return the oldest version that is not deleted."""
        return max(self.min_available_version, 1)


class BackupRefused(Refused):
    """A key may not be saved as a backup, or the restoration of a backup would replace an existing key. Vault answers
    this error with the status 500, and so does this server.
    """

    code = "backup_refused"


class VersionBackup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version of a key in a backup: the time of its creation in microseconds since the epoch, and its material."""

    version: int
    created_at: int
    material: bytes

    def __repr__(self) -> str:
        """Return only the version: the material is secret."""
        return f"VersionBackup({self.version})"


class KeyBackup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key with the material of all its versions, the oldest first. The name in `key` is the name without the
    mount.
    """

    format: str
    key: TransitKey
    versions: tuple[VersionBackup, ...]


class VersionedText(NamedTuple):
    """The parts of a ciphertext, a signature or an HMAC in the form `vault:vN:BASE64`: the version of the key, and the
    bytes.
    """

    version: int
    content: bytes


def check_name(name: str) -> str:
    """Return `name` if it is a valid name of a transit key. Raises Invalid otherwise."""
    if not _NAME.fullmatch(name):
        raise Invalid("the name of a key must have 1 to 128 letters, digits, dots, hyphens and underscores")
    return name


def stored_name(mount: str, name: str) -> str:
    """Return the name under which a key of a mount is stored: the path of the mount and the name; for the mount
    `transit`, only the name.
    """
    return name if mount == MOUNT else f"{mount}/{name}"


def shown_name(stored: str) -> str:
    """Return the name of a stored key without the path of its mount."""
    return stored.rpartition("/")[2]


def object_of(stored: str) -> str:
    """Return the text by which ledger entries name a stored key: the path of its mount, and its name."""
    return stored if "/" in stored else f"{MOUNT}/{stored}"


def make_material(kind: str, *, random: Callable[[int], bytes], new_rsa_key: Callable[[str], PrivateKey]) -> bytes:
    """Return the random material of a new key of the type `kind`. `new_rsa_key` returns a new RSA key of a type such as
    `RSA-2048`. Raises Invalid for an unknown type, and the errors of `new_rsa_key`.
    """
    if kind in RSA_BITS:
        return encode_private_key(new_rsa_key(kind.upper()))
    if kind in CURVES:
        return encode_private_key(ec.generate_private_key(CURVES[kind]()))
    if kind not in KEY_BYTES:
        raise Invalid("unknown key type", hint=f"use one of {', '.join(sorted(KINDS))}")
    return random(KEY_BYTES[kind])


def render_text(version: int, content: bytes) -> str:
    """Return the text form of a ciphertext, a signature or an HMAC."""
    return f"vault:v{version}:{base64.b64encode(content).decode()}"


def parse_text(text: str, *, of: str) -> VersionedText:
    """Return the version and the bytes of a text of the form `vault:vN:BASE64`. `of`: `ciphertext`, `signature` or
    `hmac`, for the error message. Raises Invalid for other text.
    """
    match = TEXT.fullmatch(text)
    if match is None:
        raise wrong_text(of)
    return VersionedText(int(match[1]), decode_base64(match[2], field=of))


def wrong_text(of: str) -> Invalid:
    """Return the error for a ciphertext, a signature or an HMAC that does not have the form `vault:vN:BASE64`. `of`:
    `ciphertext`, `signature` or `hmac`.
    """
    return Invalid(f"invalid {of}: not of the form vault:vN:BASE64")


def decode_base64(text: str, *, field: str) -> bytes:
    """Return the bytes of standard base64. `field`: the name of the member in the error message. Raises Invalid for
    other text; the message does not contain the text.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # also binascii.Error, and a text that is not ASCII
        raise Invalid(f"failed to base64-decode `{field}`") from None


def check_derivation(kind: str, *, is_derived: bool, is_convergent: bool) -> None:
    """Check that a key of the type `kind` may have these settings: convergent encryption needs derivation, and only
    keys for authenticated encryption (not RSA or curves) have derivation. Raises Invalid otherwise.
    """
    if is_convergent and not is_derived:
        raise Invalid("convergent encryption requires derivation to be enabled", hint="set `derived`")
    if is_derived and kind not in AEAD:
        raise Invalid(f"key derivation and convergent encryption not supported for keys of type {kind[:32]}")


def derive_material(key: TransitKey, material: bytes, context: bytes) -> bytes:
    """Return the material of a key for one context (HKDF with SHA-256, RFC 5869). Raises Invalid if the key was created
    without derivation, or `context` is empty.
    """
    if not key.is_derived:
        raise Invalid("`context` is only for keys that were created with `derived`", hint="leave `context` out")
    if not context:
        raise Invalid(
            "missing 'context' for key derivation; the key was created using a derived key, which means additional, "
            "per-request information must be included in order to perform operations with the key"
        )
    return HKDF(hashes.SHA256(), KEY_BYTES[key.kind], salt=None, info=context).derive(material)


def convergent_nonce(material: bytes, plain: bytes, bound: bytes) -> bytes:
    """Return the nonce with which a convergent key encrypts a plain text: a MAC of the plain text and the associated
    data `bound`. Two messages with the same nonce would reveal the key of the authentication, so the nonce must depend
    on both.
    """
    nonce_key = hmac.digest(material, b"ostiary convergent nonce", sha256)
    return hmac.digest(nonce_key, len(bound).to_bytes(8) + bound + plain, sha256)[:NONCE_BYTES]


def encrypt(kind: str, material: bytes, plain: bytes, *, bound: bytes, nonce: bytes) -> bytes:
    """Return the nonce followed by the ciphertext; for an RSA key, only the ciphertext, without a nonce. `bound`: the
    associated data. Raises Invalid if keys of this type cannot encrypt; for an RSA key, also if the plain text is too
    long, or `bound` is not empty.
    """
    if kind in RSA_BITS:
        try:
            return rsa_key(kind, material).public_key().encrypt(plain, _oaep(bound))
        except ValueError:
            most = RSA_BITS[kind] // 8 - 66
            raise Invalid(f"the plaintext has more than {most} bytes", hint="encrypt a data key instead") from None
    return nonce + _cipher(kind, material).encrypt(nonce, plain, bound or None)


def decrypt(kind: str, material: bytes, content: bytes, *, bound: bytes) -> bytes:
    """Return the plain text of `content`, which `encrypt` made with the same associated data `bound`. Raises Invalid if
    keys of this type cannot decrypt, or if the content was changed or made with another key or other associated data;
    for an RSA key, also if `bound` is not empty.
    """
    try:
        if kind in RSA_BITS:
            return rsa_key(kind, material).decrypt(content, _oaep(bound))
        return _cipher(kind, material).decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], bound or None)
    except (InvalidTag, ValueError):
        raise Invalid("cipher: message authentication failed") from None


def _oaep(bound: bytes) -> padding.OAEP:
    """Return the padding of RSA encryption (RFC 8017 section 7.1, with SHA-256). Raises Invalid if there is associated
    data, which RSA does not bind.
    """
    if bound:
        raise Invalid("`associated_data` is not supported for RSA keys", hint="leave `associated_data` out")
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def rsa_key(kind: str, material: bytes) -> rsa.RSAPrivateKey:
    """Return the private key in the stored material of an RSA key."""
    key = load_der_private_key(material, None, unsafe_skip_rsa_key_validation=True)  # the material was checked once
    assert isinstance(key, rsa.RSAPrivateKey)  # its kind says so
    assert key.key_size == RSA_BITS[kind]
    return key


def _cipher(kind: str, material: bytes) -> AESGCM | ChaCha20Poly1305:
    if kind not in AEAD:
        raise Invalid(f"message encryption and decryption not supported for key type {kind}")
    return ChaCha20Poly1305(material) if kind == "chacha20-poly1305" else AESGCM(material)


def hash_of(name: str) -> hashes.HashAlgorithm:
    """Return the hash algorithm with this name in the Vault API. Raises Invalid for an unknown name."""
    if name not in HASHES:
        raise Invalid("unsupported hash algorithm", hint=f"use one of {', '.join(HASHES)}")
    return HASHES[name]()


def ec_key(kind: str, material: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the private key in the stored material of an elliptic curve key (ECDSA). Raises Invalid for a key of
    another type.
    """
    if kind not in CURVES:
        raise Invalid(f"message signing not supported for key type {kind}")
    key = load_der_private_key(material, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # its kind says so
    return key


def make_hmac(material: bytes, data: bytes, *, algorithm: str) -> bytes:
    """Return the HMAC of data, with a key that is derived from the key's material. Raises Invalid for an unknown hash
    algorithm.
    """
    name = hash_of(algorithm).name.replace("-", "_")
    return hmac.digest(_hmac_key(material), data, name)


def _hmac_key(material: bytes) -> bytes:
    return hmac.digest(material, b"ostiary transit hmac", sha256)


def render_public_key(kind: str, material: bytes) -> str:
    """Return the public key in PEM; for Ed25519, the base64 of its 32 bytes."""
    if kind == "ed25519":
        raw = Ed25519PrivateKey.from_private_bytes(material).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(raw).decode()
    public = (rsa_key if kind in RSA_BITS else ec_key)(kind, material).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def usable_version(key: TransitKey, version: int) -> int:
    """Return the version of the key that encrypts or signs: `version`, or, if it is 0, the latest version. Raises
    Invalid for a version that does not exist, or is below the minimum version for encryption or for decryption.
    """
    if version == 0:
        return key.latest_version
    if version < 0 or version > key.latest_version:
        raise Invalid("requested version for encryption is higher than the latest key version")
    if version < max(key.min_encryption_version, key.min_decryption_version):
        raise Invalid("requested version for encryption is less than the minimum encryption key version")
    return version


def check_readable(key: TransitKey, version: int) -> None:
    """Check that the key still decrypts ciphertexts and verifies signatures of this version: the version exists and is
    not below the minimum version for decryption. Raises Invalid otherwise.
    """
    if version > key.latest_version:
        raise Invalid("invalid ciphertext: version is too new")
    if version < key.min_decryption_version:
        raise Invalid("ciphertext or signature version is disallowed by policy (too old)")


# --- export and backup


def render_material(use: str, kind: str, material: bytes) -> str:
    """Return the exported form of a key's material, as Vault does: base64, or PEM for elliptic curve and RSA keys.
    `use`: one of `EXPORTS`, or `PUBLIC` for the public key. Raises Invalid if keys of this type do not have this use.
    """
    if use == PUBLIC:
        if kind not in SIGNING:
            raise Invalid(f"public-key not supported for the key type {kind}")
        return render_public_key(kind, material)
    if use == "hmac-key":
        return base64.b64encode(_hmac_key(material)).decode()
    if kind not in (ENCRYPTING if use == "encryption-key" else SIGNING):
        raise Invalid(f"{use.removesuffix('-key')} not supported for the key type {kind}")
    if kind in CURVES or kind in RSA_BITS:
        key = rsa_key(kind, material) if kind in RSA_BITS else ec_key(kind, material)
        return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    if kind == "ed25519":  # 64 bytes: the private key, then the public key
        material += base64.b64decode(render_public_key(kind, material))
    return base64.b64encode(material).decode()


def render_backup(key: TransitKey, versions: Iterable[VersionBackup]) -> str:
    """Return the text of a backup: a key with the material of its versions."""
    backup = KeyBackup(BACKUP_FORMAT, msgspec.structs.replace(key, name=shown_name(key.name)), tuple(versions))
    return base64.b64encode(msgspec.json.encode(backup)).decode()


_decode_backup = json_decoder(KeyBackup)


def parse_backup(text: str, *, most: int) -> KeyBackup:
    """Return the key in the text of a backup with at most `most` versions. The caller must still check the key material
    with `check_material`. Raises Invalid if the text is no such backup; the message contains no part of the backup.
    """
    try:
        backup = _decode_backup(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise _wrong_backup() from None
    key, numbers = backup.key, [one.version for one in backup.versions]
    check_name(key.name)
    is_valid = (
        backup.format == BACKUP_FORMAT
        and key.kind in KINDS
        and key.min_available_version >= 0
        and 0 < len(numbers) <= most
        and numbers == list(range(key.oldest_version, key.oldest_version + len(numbers)))
        and key.oldest_version <= key.min_decryption_version <= key.latest_version == numbers[-1] < MAX_VERSION
        and (not key.min_encryption_version or key.min_decryption_version <= key.min_encryption_version <= numbers[-1])
        and (not key.auto_rotate_s or SHORTEST_PERIOD_S <= key.auto_rotate_s <= MAX_DURATION_S)
        and all(one.created_at >= 0 for one in backup.versions)
        and (not key.is_derived or key.kind in AEAD)
        and (not key.is_convergent or key.is_derived)
    )
    if not is_valid:
        raise _wrong_backup()
    return backup


def check_material(backup: KeyBackup) -> None:
    """Check that the key material of each version of a backup fits the type of the key. This takes time, so check first
    whether the caller may restore a backup. Raises Invalid otherwise.
    """
    if not all(is_material(backup.key.kind, one.material) for one in backup.versions):
        raise _wrong_backup()


def _wrong_backup() -> Invalid:
    return Invalid("`backup` is not a backup of a key", hint="send the text of `backup` unchanged")


def is_material(kind: str, material: bytes) -> bool:
    """Return whether the bytes are key material of the type `kind`, in exactly the form that `make_material` writes."""
    if kind in KEY_BYTES:
        return len(material) == KEY_BYTES[kind]
    if len(material) > (MAX_RSA_BYTES if kind in RSA_BITS else MAX_CURVE_BYTES):
        return False
    try:
        key = load_der_private_key(material, None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    if kind in RSA_BITS:
        is_of_kind = isinstance(key, rsa.RSAPrivateKey) and _is_consistent(key, RSA_BITS[kind])
    else:
        is_of_kind = isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, CURVES[kind])
    return is_of_kind and key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) == material


def _is_consistent(key: rsa.RSAPrivateKey, bits: int) -> bool:
    """Return whether an RSA key has this length and the exponent 65537, its modulus is odd, and its numbers fit each
    other. Whether the factors are primes is not tested: that takes a quarter of a second, and such a key harms only its
    holder.
    """
    own = key.private_numbers()
    n, e = own.public_numbers.n, own.public_numbers.e
    is_fitting = own.p > 1 and own.q > 1 and own.p * own.q == n and own.iqmp * own.q % own.p == 1
    exponents = ((own.p, own.dmp1), (own.q, own.dmq1))
    return (
        (key.key_size, e, n % 2) == (bits, 65537, 1)
        and is_fitting
        and all(own.d % (prime - 1) == exponent and e * exponent % (prime - 1) == 1 for prime, exponent in exponents)
    )
