"""Keys of certificates: their types, and the checks that refuse weak keys and keys that are known to be bad.

RSA keys are refused if they have small factors, factors close to each other, or the structure of CVE-2017-15361 (ROCA).
Ed25519 keys are refused if they are points of small order, because a signature by such a key needs no private key.
"""

from __future__ import annotations

from functools import cache, lru_cache
from hashlib import sha1, sha256
from math import gcd, isqrt, prod
from typing import Any, NamedTuple, get_args

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from ostiary.protocol import canonical
from ostiary.protocol.certificate import KeyType
from ostiary.protocol.errors import Invalid
from ostiary.protocol.jose import b64u, render_public_jwk

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
EC_CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}
_EC_PREFIXES = {
    "P-256": bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"),
    "P-384": bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004"),
}
"""The bytes of a SubjectPublicKeyInfo in DER before the coordinates of a point that is not compressed, by the curve
(RFC 5480).
"""
KEY_TYPES: tuple[str, ...] = get_args(KeyType)
MAX_KEY_BYTES = 2048
_UNREADABLE, _KNOWN_TYPES = "the public key cannot be read", f"use one of {', '.join(KEY_TYPES)}"
_NEW_KEY = "generate another key with a current library, such as OpenSSL 3"
_FERMAT_STEPS = 100
_SMALL_ORDER = frozenset(
    bytes.fromhex(point)
    for point in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    )
)
"""The encodings, canonical and not canonical, of the points of order 1, 2, 4 and 8 of edwards25519."""


class BadKey(Invalid):
    """The public key is weak, known to be bad, of a type that is not certified, or blocked after a report of
    compromise.
    """

    code = "bad_public_key"


class CheckedKey(NamedTuple):
    """The properties of a public key that can be certified.

    `jkt` is the key's RFC 7638 thumbprint, which the registry uses as the key's id. `digest` is the SHA-256 of its
    SubjectPublicKeyInfo in base64url. `key_id` is its subject key identifier (RFC 5280 section 4.2.1.2). `parsed` is
    the key itself, which verifies signatures.
    """

    key_type: str
    jkt: str
    digest: str
    key_id: bytes
    parsed: PublicKey


@lru_cache(maxsize=1024)
def check_public_key(der: bytes) -> CheckedKey:
    """Return the properties of the key in a SubjectPublicKeyInfo (DER). Raises BadKey for a key that cannot be read, is
    weak or known to be bad, or has a type that is not certified.

    The result is cached, because one issuance calls this function several times.
    """
    if (key_type := curve_of(der)) is not None:
        point = der[len(_EC_PREFIXES[key_type]) - 1 :]
        key: Any = _load_point(EC_CURVES[key_type], point)
        half = len(point) // 2
        x, y = b64u(point[1 : half + 1]), b64u(point[half + 1 :])
        jkt = b64u(sha256(f'{{"crv":"{key_type}","kty":"EC","x":"{x}","y":"{y}"}}'.encode()).digest())  # RFC 7638
        key_id = sha1(point, usedforsecurity=False).digest()
    else:
        key = parse_public_key(der)
        key_type, jkt = check_key(key), canonical.digest(render_public_jwk(key))
        key_id = x509.SubjectKeyIdentifier.from_public_key(key).digest
    return CheckedKey(key_type, jkt, key_digest(der), key_id, key)


def curve_of(der: bytes) -> str | None:
    """Return the curve of a SubjectPublicKeyInfo in the form in which `encode_public_key` returns keys of this curve;
    None for another key, or another form.
    """
    for curve, prefix in _EC_PREFIXES.items():
        if der.startswith(prefix):
            return curve
    return None


def generate_key(key_type: str) -> PrivateKey:
    """Return a new private key of the type `key_type`. Raises Invalid for an unknown type."""
    if key_type in EC_CURVES:
        return ec.generate_private_key(EC_CURVES[key_type])
    if key_type == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if key_type in KEY_TYPES:
        return rsa.generate_private_key(65537, int(key_type.removeprefix("RSA-")))
    raise Invalid(f"the key type {key_type[:32]!a} is unknown", hint=f"use one of {', '.join(KEY_TYPES)}")


def generate_keys(key_type: str, count: int = 3) -> list[PrivateKey]:
    """Return `count` new private keys. The default is three keys: for a root, for an intermediate, and for the
    intermediate's OCSP responder.

    RSA keys take seconds, so call this function before an act, not within an act.
    """
    return [generate_key(key_type) for _ in range(count)]


def encode_private_key(key: PrivateKey) -> bytes:
    """Return a private key as PKCS #8 in DER. The result is not encrypted: encrypt it before you store it."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def parse_private_key(der: bytes) -> PrivateKey:
    """Return the private key in `der`, which `encode_private_key` made and the server stored encrypted.

    The numbers of an RSA key are not checked again, because the check of a key with 4,096 bits takes a quarter of a
    second.
    """
    key = load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, PrivateKey)
    return key


def parse_public_key(der: bytes) -> PublicKey:
    """Return the public key in a SubjectPublicKeyInfo (DER). Raises BadKey if the key cannot be read, is too long, or
    has an algorithm that is not certified.
    """
    key = _load(der)
    if not isinstance(key, PublicKey):
        raise BadKey("keys of this algorithm are not certified", hint=_KNOWN_TYPES)
    return key


def _load(der: bytes) -> object:
    if len(der) > MAX_KEY_BYTES:
        raise BadKey(f"the public key is over {MAX_KEY_BYTES} bytes")
    try:
        return load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey(_UNREADABLE, hint=_KNOWN_TYPES) from None


def _load_point(curve: ec.EllipticCurve, point: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key of an encoded point, in less time than `_load`. Raises BadKey for a point that is not on the
    curve.
    """
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
    except ValueError:
        raise BadKey(_UNREADABLE, hint=_KNOWN_TYPES) from None


def encode_public_key(key: PublicKey) -> bytes:
    """Return a public key as SubjectPublicKeyInfo in DER; equal keys have equal results."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def name_key_type(key: PublicKey) -> str:
    """Return the type of a public key, such as `P-256`, also for a curve or a length that cannot be certified."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA-{key.key_size}"
    return next((name for name, curve in EC_CURVES.items() if curve.name == key.curve.name), key.curve.name)


def key_type_of(key: PublicKey) -> str:
    """Return the type of a public key, such as `P-256`. Raises BadKey for a curve or a length that
    cannot be certified.
    """
    name = name_key_type(key)
    if name not in KEY_TYPES:
        raise BadKey(f"keys of the type {name} are not certified", hint=_KNOWN_TYPES)
    return name


def check_key(key: PublicKey) -> str:
    """Return the type of a key. Raises BadKey for a key that is weak or known to be bad, or has a type that is not
    certified.
    """
    key_type = key_type_of(key)
    match key:
        case rsa.RSAPublicKey():
            numbers = key.public_numbers()
            _check_rsa(numbers.n, numbers.e)
        case ed25519.Ed25519PublicKey():
            if key.public_bytes_raw() in _SMALL_ORDER:
                raise BadKey("the Ed25519 key is a point of small order", hint=_NEW_KEY)
    return key_type


def key_digest(public_key: bytes) -> str:
    """Return the SHA-256 of a SubjectPublicKeyInfo in base64url."""
    return b64u(sha256(public_key).digest())


def _check_rsa(n: int, e: int) -> None:
    if e < 65537 or e % 2 == 0 or e.bit_length() > 64:
        raise BadKey("the exponent of the RSA key is not an odd number of 65537 or more, of at most 64 bits")
    if n % 2 == 0 or gcd(n, _small_primes()[1]) != 1:
        raise BadKey("the RSA key has a small factor", hint=_NEW_KEY)
    if _is_roca(n):
        raise BadKey("the RSA key was made by a generator with the defect CVE-2017-15361 (ROCA)", hint=_NEW_KEY)
    if _has_close_factors(n):
        raise BadKey("the factors of the RSA key are close to each other", hint=_NEW_KEY)


def _has_close_factors(n: int) -> bool:
    """Return whether Fermat's method finds the factors of `n` in a few steps."""
    a = isqrt(n - 1) + 1
    for _ in range(_FERMAT_STEPS):
        square = a * a - n
        if isqrt(square) ** 2 == square:
            return True
        a += 1
    return False


def _is_roca(n: int) -> bool:
    """Return whether `n` is a power of 65537 modulo each prime up to 167. All moduli of ROCA keys have this
    property.
    """
    return all(n % prime in powers for prime, powers in _roca_powers())


@cache
def _roca_powers() -> tuple[tuple[int, frozenset[int]], ...]:
    primes = [prime for prime in _small_primes()[0] if 3 <= prime <= 167]
    return tuple((prime, frozenset(pow(65537, power, prime) for power in range(prime))) for prime in primes)


@cache
def _small_primes() -> tuple[tuple[int, ...], int]:
    """Return the odd primes below 752, and their product."""
    primes = tuple(
        number for number in range(3, 752) if all(number % divisor for divisor in range(2, isqrt(number) + 1))
    )
    return primes, prod(primes)
