"""Key material: signers and verifiers from the members of a JWK (RFC 7518 section 6, RFC 8037); one entry of KINDS per
key type.

A refusal never quotes a value: it may be private.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256, sha384
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from ostiary.protocol.errors import Malformed
from ostiary.protocol.jose.encoding import b64u, unb64u
from ostiary.protocol.jose.errors import InvalidKey, InvalidToken

Members = Mapping[str, object]
Sign = Callable[[bytes], bytes]
Verify = Callable[[bytes, bytes], None]
"""A function of (signature, data) that verifies a signature. Raises InvalidToken, or InvalidSignature
of the library.
"""

RSA_BITS = range(2048, 4097)
PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv")


class _Curve(NamedTuple):
    """A curve of EC keys with its algorithm (`alg`), the length of a coordinate in bytes, and the hash function of the
    algorithm. `ecdsa` is made once, because the library would look for the class of the hash each time.
    """

    curve: ec.EllipticCurve
    alg: str
    size: int
    digest: Callable[[bytes], Any]
    ecdsa: ec.ECDSA


_CURVES = {
    "P-256": _Curve(ec.SECP256R1(), "ES256", 32, sha256, ec.ECDSA(Prehashed(hashes.SHA256()))),
    "P-384": _Curve(ec.SECP384R1(), "ES384", 48, sha384, ec.ECDSA(Prehashed(hashes.SHA384()))),
}
_OKP_ALGS, _RSA_ALGS = ("EdDSA", "Ed25519"), ("RS256", "PS256")
_SHA256 = hashes.SHA256()
_PSS = padding.PSS(mgf=padding.MGF1(_SHA256), salt_length=_SHA256.digest_size)  # RFC 7518 section 3.5
_PKCS1 = padding.PKCS1v15()
_CRT = ("p", "q", "dp", "dq", "qi")
_MISMATCH = "the private and public members belong to different keys"

_P25519 = (1 << 255) - 19
_Y8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826  # of two of the points of order 8
_SMALL_ORDER = frozenset({0, 1, _P25519 - 1, _Y8, _P25519 - _Y8})

_PRIMES = [p for p in range(3, 168, 2) if all(p % q for q in range(3, p, 2))]
_ROCA = [(p, frozenset(pow(65537, power, p) for power in range(p))) for p in _PRIMES]
"""Pairs (small prime, powers of 65537 modulo this prime). A modulus of the faulty generator (CVE-2017-15361) is such a
power modulo each of the primes; of other moduli, one in 10^8 is.
"""


class Kind(NamedTuple):
    """A key type (`kty`)."""

    public: tuple[str, ...]
    """the members that make the public key, in the order of RFC 7638"""
    secret: tuple[str, ...]
    algs: tuple[str, ...]
    """the algorithms of all keys of this type"""
    read: Callable[[Members], tuple[tuple[str, ...], Callable[[str], Verify]]]
    """the algorithms of the key, the default first, and the function that verifies with one of them"""
    signer: Callable[[Members, str, bool], Sign]
    """function of (private members, algorithm, whether the key is known to be sound) that returns the signing
    function. The public members were checked before. Raises InvalidKey, and ValueError of the library
    """
    generate: Callable[[str], dict[str, str]]
    """function that returns the members of a new key for an algorithm"""


def _read_ec(jwk: Members) -> tuple[tuple[str, ...], Callable[[str], Verify]]:
    crv = jwk.get("crv")
    if not isinstance(crv, str) or crv not in _CURVES:
        raise InvalidKey(f"the curve (`crv`) of an EC key is none of {', '.join(_CURVES)}")
    curve, alg, size, digest, ecdsa = _CURVES[crv]
    x, y = _bytes(jwk, "x", size), _bytes(jwk, "y", size)
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)
    except ValueError:
        raise InvalidKey("`x` and `y` are not a point on the curve") from None
    native = key.verify

    def verify(signature: bytes, data: bytes) -> None:
        if len(signature) != 2 * size:
            raise InvalidToken(f"a signature with {alg} must have {2 * size} bytes")
        native(_der_signature(signature[:size], signature[size:]), digest(data).digest(), ecdsa)

    return (alg,), lambda _alg: verify


def _sign_ec(jwk: Members, _alg: str, _is_sound: bool) -> Sign:
    curve, _, size, digest, ecdsa = _CURVES[str(jwk["crv"])]
    key = ec.derive_private_key(int.from_bytes(_bytes(jwk, "d", size)), curve)
    point = key.public_key().public_numbers()
    if (_uint(point.x, size), _uint(point.y, size)) != (jwk["x"], jwk["y"]):
        raise InvalidKey(_MISMATCH)
    native = key.sign

    def sign(data: bytes) -> bytes:
        der = native(digest(data).digest(), ecdsa)
        end = 4 + der[3]  # a sequence of two integers; each length fits one byte
        return _fixed(der[4:end], size) + _fixed(der[end + 2 :], size)

    return sign


def _der_signature(r: bytes, s: bytes) -> bytes:
    """Return the ECDSA signature (r, s) in DER (RFC 3279 section 2.2.3), the form that the library verifies. This
    takes a third of the time of the library's own encoder.
    """
    r, s = r.lstrip(b"\0"), s.lstrip(b"\0")
    if not r or r[0] >= 0x80:  # a DER integer has the fewest bytes in which it is positive
        r = b"\0" + r
    if not s or s[0] >= 0x80:
        s = b"\0" + s
    return b"\x30%c\x02%c%b\x02%c%b" % (len(r) + len(s) + 4, len(r), r, len(s), s)


def _fixed(integer: bytes, size: int) -> bytes:
    """Return the value of a positive DER integer as exactly `size` bytes."""
    return integer[-size:].rjust(size, b"\0")


def _generate_ec(alg: str) -> dict[str, str]:
    [(crv, curve)] = [(crv, curve) for crv, curve in _CURVES.items() if curve.alg == alg]
    numbers, size = ec.generate_private_key(curve.curve).private_numbers(), curve.size
    point = numbers.public_numbers
    return {"crv": crv, "x": _uint(point.x, size), "y": _uint(point.y, size), "d": _uint(numbers.private_value, size)}


def _read_okp(jwk: Members) -> tuple[tuple[str, ...], Callable[[str], Verify]]:
    if jwk.get("crv") != "Ed25519":
        raise InvalidKey("the curve (`crv`) of an OKP key is not Ed25519")
    x = _bytes(jwk, "x", 32)
    y = int.from_bytes(x, "little") & ~(1 << 255)
    if y >= _P25519:
        raise InvalidKey("`x` is not in canonical form")
    if y in _SMALL_ORDER:
        raise InvalidKey("`x` is a point of small order, under which anyone can sign", hint="generate a new key")
    key = ed25519.Ed25519PublicKey.from_public_bytes(x)
    return _OKP_ALGS, lambda _alg: key.verify


def _sign_okp(jwk: Members, alg: str, _is_sound: bool) -> Sign:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(_bytes(jwk, "d", 32))
    if b64u(key.public_key().public_bytes_raw()) != jwk["x"]:
        raise InvalidKey(_MISMATCH)
    return key.sign


def _generate_okp(alg: str) -> dict[str, str]:
    key = ed25519.Ed25519PrivateKey.generate()
    return {"crv": "Ed25519", "x": b64u(key.public_key().public_bytes_raw()), "d": b64u(key.private_bytes_raw())}


def _read_rsa(jwk: Members) -> tuple[tuple[str, ...], Callable[[str], Verify]]:
    n, e = _int(jwk, "n"), _int(jwk, "e")
    if n.bit_length() not in RSA_BITS:
        raise InvalidKey(f"an RSA key must have {RSA_BITS.start} to {RSA_BITS.stop - 1} bits, not {n.bit_length()}")
    if not n & 1:
        raise InvalidKey("the modulus (`n`) of an RSA key must be odd")
    if not 65537 <= e < 1 << 64 or not e & 1:  # the lower bound is that of FIPS 186-5
        raise InvalidKey("the exponent (`e`) of an RSA key must be odd and between 65537 and 2^64")
    if all(n % prime in powers for prime, powers in _ROCA):
        raise InvalidKey("the RSA key comes from a faulty key generator (CVE-2017-15361)", hint="generate a new key")
    native, size = rsa.RSAPublicNumbers(e, n).public_key().verify, (n.bit_length() + 7) // 8

    def verifier(alg: str) -> Verify:
        pad = _PSS if alg == "PS256" else _PKCS1

        def verify(signature: bytes, data: bytes) -> None:
            if len(signature) != size:
                raise InvalidToken(f"a signature of this RSA key must have {size} bytes")
            native(signature, data, pad, _SHA256)

        return verify

    return _RSA_ALGS, verifier


def _sign_rsa(jwk: Members, alg: str, is_sound: bool) -> Sign:
    if "oth" in jwk:
        raise InvalidKey("RSA keys of more than two primes are not supported")
    p, q, dp, dq, qi = (_int(jwk, name) for name in _CRT)
    public = rsa.RSAPublicNumbers(_int(jwk, "e"), _int(jwk, "n"))
    numbers = rsa.RSAPrivateNumbers(p, q, _int(jwk, "d"), dp, dq, qi, public)
    key = numbers.private_key(unsafe_skip_rsa_key_validation=is_sound)
    native, pad = key.sign, _PSS if alg == "PS256" else _PKCS1
    return lambda data: native(data, pad, _SHA256)


def _generate_rsa(alg: str) -> dict[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS.start).private_numbers()
    n, e = key.public_numbers.n, key.public_numbers.e
    values = {"n": n, "e": e, "d": key.d, "p": key.p, "q": key.q, "dp": key.dmp1, "dq": key.dmq1, "qi": key.iqmp}
    return {name: _uint(value) for name, value in values.items()}


KINDS = {
    "EC": Kind(
        ("crv", "kty", "x", "y"),
        ("d",),
        tuple(curve.alg for curve in _CURVES.values()),
        _read_ec,
        _sign_ec,
        _generate_ec,
    ),
    "OKP": Kind(("crv", "kty", "x"), ("d",), _OKP_ALGS, _read_okp, _sign_okp, _generate_okp),
    "RSA": Kind(("e", "kty", "n"), ("d", *_CRT), _RSA_ALGS, _read_rsa, _sign_rsa, _generate_rsa),
}


def render_public_jwk(key: object) -> dict[str, str]:
    """Return the members of the JWK of a public key of the library. Raises InvalidKey for a key of another kind."""
    if isinstance(key, rsa.RSAPublicKey):
        rsa_numbers = key.public_numbers()
        return {"kty": "RSA", "n": _uint(rsa_numbers.n), "e": _uint(rsa_numbers.e)}
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": b64u(key.public_bytes_raw())}
    for crv, one in _CURVES.items():
        if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == one.curve.name:
            point = key.public_numbers()
            return {"kty": "EC", "crv": crv, "x": _uint(point.x, one.size), "y": _uint(point.y, one.size)}
    raise InvalidKey(f"the key is none of RSA, {', '.join(_CURVES)}, Ed25519")


def _bytes(jwk: Members, name: str, size: int | None = None) -> bytes:
    """Return the decoded base64url member `name` of a JWK, which must have `size` bytes unless `size` is None (RFC 7518
    section 6.2.1.2). Raises InvalidKey for a missing or malformed member.
    """
    if name not in jwk:
        raise InvalidKey(f"the key has no member `{name}`")
    text = jwk[name]
    if not isinstance(text, str):
        raise InvalidKey(f"the member `{name}` of the key is not a string")
    if not text:
        raise InvalidKey(f"`{name}` is empty")
    if len(text) > 1024:
        raise InvalidKey(f"`{name}` is too long")
    try:
        value = unb64u(text)
    except Malformed as error:
        raise InvalidKey(f"`{name}` is {error.message}") from None
    if size is not None and len(value) != size:
        raise InvalidKey(f"`{name}` has {len(value)} bytes instead of {size}")
    return value


def _int(jwk: Members, name: str) -> int:
    """Return the integer in the member `name` of a JWK, a Base64urlUInt (RFC 7518 section 2), which must have no
    leading zero byte. Raises InvalidKey for a missing or malformed member.
    """
    value = _bytes(jwk, name)
    if value[0] == 0:
        raise InvalidKey(f"`{name}` begins with a zero byte")
    return int.from_bytes(value)


def _uint(value: int, size: int | None = None) -> str:
    return b64u(value.to_bytes((value.bit_length() + 7) // 8 if size is None else size))
