"""Signatures of transit keys: Ed25519, ECDSA and RSA, in the text forms of Vault."""

from __future__ import annotations

from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ostiary.protocol.errors import Invalid, Malformed
from ostiary.protocol.jose import b64u, unb64u
from ostiaryd.secrets.model.transit_keys import (
    CURVES,
    RSA_BITS,
    TEXT,
    VersionedText,
    ec_key,
    hash_of,
    parse_text,
    render_text,
    rsa_key,
    wrong_text,
)


class SignatureForm(NamedTuple):
    """The form of a signature: the hash algorithm by its name, whether the input is a hash already, and for RSA the
    padding and the length of its salt.
    """

    algorithm: str
    is_hashed: bool = False
    padding: str = "pss"
    salt: str = "auto"


def sign(kind: str, material: bytes, data: bytes, form: SignatureForm) -> bytes:
    """Return the signature of `data`, or, if `form` says so, of `data` as a hash. ECDSA signatures are in DER. Raises
    Invalid for a form that keys of this type do not have, and for a hash of a wrong length.
    """
    try:
        if kind == "ed25519":
            _check_unhashed(form)
            return Ed25519PrivateKey.from_private_bytes(material).sign(data)
        if kind in RSA_BITS:
            return rsa_key(kind, material).sign(data, _rsa_padding(kind, form, is_new=True), _rsa_hash(form))
        return ec_key(kind, material).sign(data, ec.ECDSA(_prehashed(form)))
    except ValueError:
        raise Invalid(f"the input does not have the length of a hash of {form.algorithm}") from None


def has_signature(kind: str, material: bytes, data: bytes, signature: bytes, form: SignatureForm) -> bool:
    """Return whether `signature` was made with this key for `data`, or, if `form` says so, for `data` as a hash. Raises
    Invalid for a form that keys of this type do not have.
    """
    try:
        if kind == "ed25519":
            _check_unhashed(form)
            Ed25519PrivateKey.from_private_bytes(material).public_key().verify(signature, data)
        elif kind in RSA_BITS:
            public = rsa_key(kind, material).public_key()
            method = _rsa_hash(form)
            if isinstance(method, utils.NoDigestInfo):
                return public.recover_data_from_signature(signature, padding.PKCS1v15(), None) == data
            public.verify(signature, data, _rsa_padding(kind, form, is_new=False), method)
        else:
            ec_key(kind, material).public_key().verify(signature, data, ec.ECDSA(_prehashed(form)))
    except (InvalidSignature, ValueError):
        return False
    return True


def _check_unhashed(form: SignatureForm) -> None:
    if form.is_hashed:
        raise Invalid("prehashed is not supported for ed25519")


def _prehashed(form: SignatureForm) -> utils.Prehashed | hashes.HashAlgorithm:
    method = hash_of(form.algorithm)
    return utils.Prehashed(method) if form.is_hashed else method


def _rsa_hash(form: SignatureForm) -> utils.Prehashed | utils.NoDigestInfo | hashes.HashAlgorithm:
    """Return the hash algorithm of an RSA signature. `none` signs the input itself, as TLS 1.1 does. Raises Invalid for
    `none` with another padding, or without `prehashed`.
    """
    if form.algorithm != "none":
        return _prehashed(form)
    if not form.is_hashed or form.padding != "pkcs1v15":
        raise Invalid("hash_algorithm=none requires both prehashed=true and signature_algorithm=pkcs1v15")
    return utils.NoDigestInfo()


def _rsa_padding(kind: str, form: SignatureForm, *, is_new: bool) -> padding.PKCS1v15 | padding.PSS:
    """Return the padding of an RSA signature. `is_new`: false to verify a signature. Raises Invalid for an unsupported
    padding or salt length.
    """
    if form.padding == "pkcs1v15":
        return padding.PKCS1v15()
    if form.algorithm == "none":
        raise Invalid("hash_algorithm=none requires both prehashed=true and signature_algorithm=pkcs1v15")
    method = hash_of(form.algorithm)
    longest = RSA_BITS[kind] // 8 - method.digest_size - 2
    salt: object
    match form.salt:
        case "auto" | "0":
            salt = padding.PSS.MAX_LENGTH if is_new else padding.PSS.AUTO
        case "hash" | "-1":
            salt = padding.PSS.DIGEST_LENGTH
        case text if text.isascii() and text.isdecimal() and len(text) < 5 and int(text) <= longest:
            salt = int(text)
        case _:
            raise Invalid(f"`salt_length` must be auto, hash, or 1 to {longest}")
    return padding.PSS(padding.MGF1(method), salt)


def render_signature(kind: str, version: int, signature: bytes, *, is_jws: bool) -> str:
    """Return the text form of a signature: `vault:vN:BASE64`. `is_jws`: in base64url instead, and for an elliptic curve
    the two numbers side by side (RFC 7518 section 3.4) instead of DER.
    """
    if not is_jws:
        return render_text(version, signature)
    if kind in CURVES:
        size, numbers = _number_bytes(kind), utils.decode_dss_signature(signature)
        signature = b"".join(number.to_bytes(size) for number in numbers)
    return f"vault:v{version}:{b64u(signature)}"


def parse_signature(kind: str, text: str, *, is_jws: bool) -> VersionedText:
    """Return the version and the bytes of a signature in the text form of `render_signature`; an elliptic curve
    signature is returned in DER. Raises Invalid for other text.
    """
    if not is_jws:
        return parse_text(text, of="signature")
    match = TEXT.fullmatch(text)
    if match is None:
        raise wrong_text("signature")
    try:
        content = unb64u(match[2])
    except Malformed:
        raise Invalid("failed to base64url-decode `signature`") from None
    if kind in CURVES:
        size = _number_bytes(kind)
        if len(content) != 2 * size:
            raise Invalid(f"a signature of {kind} in the form `jws` must have {2 * size} bytes")
        numbers = (int.from_bytes(content[:size]), int.from_bytes(content[size:]))
        content = utils.encode_dss_signature(*numbers)
    return VersionedText(int(match[1]), content)


def _number_bytes(kind: str) -> int:
    return (CURVES[kind]().key_size + 7) // 8
