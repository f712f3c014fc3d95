"""Key material that is imported into transit keys, wrapped for the server (PKCS #11 3.1, `CKM_RSA_AES_KEY_WRAP`).

The wrapped material is an AES key, encrypted by the wrapping key of the mount with RSA-OAEP, and the material, wrapped
by this AES key (RFC 5649).
"""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap_with_padding
from cryptography.hazmat.primitives.serialization import load_der_private_key

from ostiary.protocol.errors import Invalid
from ostiaryd.certs.model.keys import encode_private_key
from ostiaryd.secrets.model.transit_keys import KEY_BYTES, KINDS, MAX_RSA_BYTES, decode_base64, is_material, rsa_key

WRAPPING_KIND = "rsa-4096"
WRAPPED_KEY_BYTES = 512
"""Number of bytes of the encrypted AES key, as of an RSA key with 4,096 bits."""
MAX_WRAPPED = WRAPPED_KEY_BYTES + MAX_RSA_BYTES + 16
AES_BYTES = (16, 24, 32)
HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "SHA1": hashes.SHA1,
    "SHA224": hashes.SHA224,
    "SHA256": hashes.SHA256,
    "SHA384": hashes.SHA384,
    "SHA512": hashes.SHA512,
}


def wrapping_name(mount: str) -> str:
    """Return the name under which the wrapping key of a mount is stored. No request can create a key with this name,
    because the name of a key must not contain `%`.
    """
    return f"{mount}/%/import"


def parse_wrapped(text: str, hash_name: str) -> tuple[bytes, hashes.HashAlgorithm]:
    """Return the wrapped key material in a base64 text, and the hash algorithm of its RSA padding. Raises Invalid for
    an unknown hash, another text, or material that is too short or too long.
    """
    if hash_name not in HASHES:
        raise Invalid(f"unknown hash function: {hash_name[:32]}", hint=f"use one of {', '.join(HASHES)}")
    if not text:
        raise Invalid("missing `ciphertext`", hint="the import of public keys is not supported")
    content = decode_base64(text, field="ciphertext")
    if not WRAPPED_KEY_BYTES + 16 <= len(content) <= MAX_WRAPPED:
        raise Invalid(f"`ciphertext` must have {WRAPPED_KEY_BYTES + 16} to {MAX_WRAPPED} bytes")
    return content, HASHES[hash_name]()


def unwrap_material(kind: str, wrapping: bytes, content: bytes, method: hashes.HashAlgorithm) -> bytes:
    """Return the key material in `content`, unwrapped with the key pair `wrapping`. Raises Invalid for an unknown type
    `kind`, if `content` is not wrapped for this key pair, or if the unwrapped key is not of the type `kind`; the
    message contains no part of the material.
    """
    if kind not in KINDS:
        raise Invalid("unknown key type", hint=f"use one of {', '.join(sorted(KINDS))}")
    try:
        form = padding.OAEP(padding.MGF1(method), method, None)
        key = rsa_key(WRAPPING_KIND, wrapping).decrypt(content[:WRAPPED_KEY_BYTES], form)
        if len(key) not in AES_BYTES:
            raise InvalidUnwrap
        unwrapped = aes_key_unwrap_with_padding(key, content[WRAPPED_KEY_BYTES:])
    except (InvalidUnwrap, ValueError):
        raise Invalid("the key could not be unwrapped", hint="wrap the key for the present `wrapping_key`") from None
    material = _read_material(kind, unwrapped)
    if material is None or not is_material(kind, material):
        raise Invalid(
            f"the imported key is not a key of the type {kind}",
            hint="wrap the bytes of a symmetric key, or PKCS #8 in DER for other keys",
        )
    return material


def _read_material(kind: str, unwrapped: bytes) -> bytes | None:
    """Return the material of a key in its stored form, from bytes or PKCS #8; None if it cannot be read."""
    if kind in KEY_BYTES and kind != "ed25519":
        return unwrapped
    if len(unwrapped) > MAX_RSA_BYTES:
        return None
    try:
        key = load_der_private_key(unwrapped, None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if kind == "ed25519":
        return key.private_bytes_raw() if isinstance(key, Ed25519PrivateKey) else None
    return encode_private_key(key) if isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)) else None
