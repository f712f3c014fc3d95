"""Keys as JWK: EC P-256 and P-384, Ed25519, RSA of 2048 to 4096 bits; RFC 7517, RFC 7518 section 6, RFC 8037, RFC 7638.

A key without `alg` gets the default of its type: ES256, ES384, EdDSA, RS256. Stricter than RFC 7517: a public JWK with
private members is refused, and an RSA private key must have all of its CRT members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from ostiary.core import canonical
from ostiary.core.errors import Invalid, Malformed, Unauthenticated
from ostiary.core.jose.encoding import b64u, unb64u

ALGS = frozenset({"ES256", "ES384", "EdDSA", "Ed25519", "RS256", "PS256"})
RSA_BITS = range(2048, 4097)
MAX_KID = 256

_P25519 = (1 << 255) - 19
_Y8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826  # of two of the points of order 8
_SMALL_ORDER = frozenset({0, 1, _P25519 - 1, _Y8, _P25519 - _Y8})

_PRIMES = [p for p in range(3, 168, 2) if all(p % q for q in range(3, p, 2))]
_ROCA = [(p, frozenset(pow(65537, power, p) for power in range(p))) for p in _PRIMES]
"""Moduli of that generator are powers of 65537 modulo each small prime, which one in 10^8 others is by chance."""

_Curve = ec.SECP256R1 | ec.SECP384R1
_CURVES: dict[str, tuple[_Curve, str, int]] = {
    "P-256": (ec.SECP256R1(), "ES256", 32),
    "P-384": (ec.SECP384R1(), "ES384", 48),
}
_ECDSA = {"ES256": ec.ECDSA(hashes.SHA256()), "ES384": ec.ECDSA(hashes.SHA384())}
_SHA256 = hashes.SHA256()
_PSS = padding.PSS(mgf=padding.MGF1(_SHA256), salt_length=_SHA256.digest_size)  # RFC 7518 section 3.5
_PKCS1 = padding.PKCS1v15()
_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}
PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
_CRT = ("p", "q", "dp", "dq", "qi")


class InvalidToken(Unauthenticated):
    """A token, or a signature, that proves nothing."""

    code = "invalid_token"


class InvalidKey(Invalid):
    """A JWK that we do not take."""

    code = "invalid_key"


@dataclass(frozen=True, slots=True, eq=False)
class PublicKey:
    """A key that verifies with exactly one algorithm."""

    kid: str
    """the JWK's `kid`, or else its thumbprint"""
    alg: str
    """one of ALGS"""
    jwk: dict[str, str]
    """for publishing: key members, `kid`, `alg`, `use`"""
    thumbprint: str
    """RFC 7638 with SHA-256, base64url"""
    _verify: Callable[[bytes, bytes], None] = field(repr=False)

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raises InvalidToken if this key did not make the signature of `data`. ECDSA signatures are r || s."""
        try:
            self._verify(signature, data)
        except InvalidSignature:
            raise InvalidToken("the signature is not of this key and text") from None

    def accepts(self, alg: object) -> bool:
        """Whether a header's `alg` is that of the key. `Ed25519` (RFC 9864) is what `EdDSA` means for such a key."""
        return alg == self.alg or (self.alg == "EdDSA" and alg == "Ed25519")

    @property
    def bare_jwk(self) -> dict[str, str]:
        """The members that make the key, as its thumbprint covers them."""
        return {name: self.jwk[name] for name in _MEMBERS[self.jwk["kty"]]}


@dataclass(frozen=True, slots=True, eq=False)
class PrivateKey:
    """A key that signs; `public` is what the others see."""

    public: PublicKey
    sign: Callable[[bytes], bytes] = field(repr=False)
    """the signature of the data; ECDSA signatures are r || s"""
    _secret: dict[str, str] = field(repr=False)

    def jwk(self) -> dict[str, str]:
        """With the private members: for a file of mode 0600 or a sealed row, and for nothing else."""
        return {**self.public.jwk, **self._secret}


def parse_public_jwk(jwk: object) -> PublicKey:
    """Raises InvalidKey."""
    members = _members(jwk)
    if any(name in members for name in PRIVATE_MEMBERS):
        raise InvalidKey("a public key has private members", hint="the key is compromised: make a new one")
    return _public(members)


def parse_private_jwk(jwk: object) -> PrivateKey:
    """Raises InvalidKey, also when the private and the public members are not of one key."""
    members = _members(jwk)
    public = _public(members)
    try:
        return _PRIVATE_READERS[public.jwk["kty"]](members, public)
    except ValueError:  # of cryptography; what it says may quote the numbers
        raise InvalidKey("the private members are not those of the public key") from None


def generate(alg: str, *, kid: str | None = None) -> PrivateKey:
    """A fresh key from the operating system's randomness (RSA: 2048 bits). Raises InvalidKey for an unknown `alg`."""
    jwk: dict[str, str] = {"alg": alg} if kid is None else {"alg": alg, "kid": kid}
    if alg in ("EdDSA", "Ed25519"):
        private = ed25519.Ed25519PrivateKey.generate()
        jwk |= {"kty": "OKP", "crv": "Ed25519"}
        jwk |= {"x": b64u(private.public_key().public_bytes_raw()), "d": b64u(private.private_bytes_raw())}
    elif alg in ("ES256", "ES384"):
        name, (curve, _, size) = next(item for item in _CURVES.items() if item[1][1] == alg)
        numbers = ec.generate_private_key(curve).private_numbers()
        point = numbers.public_numbers
        jwk |= {"kty": "EC", "crv": name, "x": _b64_int(point.x, size), "y": _b64_int(point.y, size)}
        jwk |= {"d": _b64_int(numbers.private_value, size)}
    elif alg in ("RS256", "PS256"):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_numbers()
        n, e = key.public_numbers.n, key.public_numbers.e
        values = {"n": n, "e": e, "d": key.d, "p": key.p, "q": key.q, "dp": key.dmp1, "dq": key.dmq1, "qi": key.iqmp}
        jwk |= {"kty": "RSA"} | {name: _b64_int(value) for name, value in values.items()}
    else:
        raise InvalidKey(f"there is no algorithm {alg!r}", hint=f"one of {', '.join(sorted(ALGS))}")
    return parse_private_jwk(jwk)


def thumbprint(members: Mapping[str, object]) -> str:
    """RFC 7638 section 3, of a key type that we know."""
    return canonical.digest({name: members[name] for name in _MEMBERS[str(members["kty"])]})


def _members(jwk: object) -> dict[str, object]:
    if not isinstance(jwk, dict):
        raise InvalidKey("a JWK is a JSON object")
    if jwk.get("kty") not in ("EC", "OKP", "RSA"):
        raise InvalidKey("the key type (`kty`) is none of EC, OKP, RSA")
    return jwk


def _public(jwk: dict[str, object]) -> PublicKey:
    kty = str(jwk["kty"])
    algs, verifier = _PUBLIC_READERS[kty](jwk)
    alg = jwk.get("alg", algs[0])
    if not isinstance(alg, str) or alg not in algs:
        raise InvalidKey(f"the key is for {' or '.join(algs)}, its `alg` says something else")
    if jwk.get("use", "sig") != "sig":
        raise InvalidKey("the key is not for signatures (`use`)")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or not {"verify", "sign"}.intersection(map(str, operations)):
        raise InvalidKey("the key is not for signatures (`key_ops`)")
    bare = {name: str(jwk[name]) for name in _MEMBERS[kty]}
    print_ = thumbprint(bare)
    kid = jwk.get("kid", print_)
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID:
        raise InvalidKey(f"`kid` is not a string of 1 to {MAX_KID} characters")
    public = {**bare, "kid": kid, "alg": alg, "use": "sig"}
    return PublicKey(kid, alg, public, print_, verifier(alg))


_Verify = Callable[[bytes, bytes], None]
_Reader = Callable[[Mapping[str, object]], tuple[tuple[str, ...], Callable[[str], _Verify]]]


def _read_ec(jwk: Mapping[str, object]) -> tuple[tuple[str, ...], Callable[[str], _Verify]]:
    crv = jwk.get("crv")
    if not isinstance(crv, str) or crv not in _CURVES:
        raise InvalidKey("the curve (`crv`) of an EC key is none of P-256, P-384")
    curve, alg, size = _CURVES[crv]
    x, y = _bytes(jwk, "x", size), _bytes(jwk, "y", size)
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)
    except ValueError:
        raise InvalidKey("`x` and `y` are no point of the curve") from None
    algorithm, native = _ECDSA[alg], key.verify

    def verify(signature: bytes, data: bytes) -> None:
        if len(signature) != 2 * size:
            raise InvalidToken(f"an {alg} signature has {2 * size} bytes")
        r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
        native(encode_dss_signature(r, s), data, algorithm)

    return (alg,), lambda _alg: verify


def _read_okp(jwk: Mapping[str, object]) -> tuple[tuple[str, ...], Callable[[str], _Verify]]:
    if jwk.get("crv") != "Ed25519":
        raise InvalidKey("the curve (`crv`) of an OKP key is not Ed25519")
    x = _bytes(jwk, "x", 32)
    y = int.from_bytes(x, "little") & ~(1 << 255)
    if y >= _P25519 or y in _SMALL_ORDER:
        raise InvalidKey("`x` is not canonical or a point of small order, under which anybody can sign")
    key = ed25519.Ed25519PublicKey.from_public_bytes(x)
    return ("EdDSA", "Ed25519"), lambda _alg: key.verify


def _read_rsa(jwk: Mapping[str, object]) -> tuple[tuple[str, ...], Callable[[str], _Verify]]:
    n, e = _int(jwk, "n"), _int(jwk, "e")
    if n.bit_length() not in RSA_BITS or not n & 1:
        raise InvalidKey(f"an RSA key has {RSA_BITS.start} to {RSA_BITS.stop - 1} bits and an odd modulus")
    if not 65537 <= e < 1 << 64 or not e & 1:  # the lower bound is that of FIPS 186-5
        raise InvalidKey("the exponent (`e`) of an RSA key is odd and between 65537 and 2^64")
    if all(n % prime in powers for prime, powers in _ROCA):
        raise InvalidKey("an RSA key of the faulty generator that CVE-2017-15361 is about", hint="make a new one")
    key = rsa.RSAPublicNumbers(e, n).public_key()
    native, size = key.verify, (n.bit_length() + 7) // 8

    def verifier(alg: str) -> _Verify:
        pad = _PSS if alg == "PS256" else _PKCS1

        def verify(signature: bytes, data: bytes) -> None:
            if len(signature) != size:
                raise InvalidToken(f"a signature of this RSA key has {size} bytes")
            native(signature, data, pad, _SHA256)

        return verify

    return ("RS256", "PS256"), verifier


_PUBLIC_READERS: dict[str, _Reader] = {"EC": _read_ec, "OKP": _read_okp, "RSA": _read_rsa}


def _private_ec(jwk: Mapping[str, object], public: PublicKey) -> PrivateKey:
    curve, alg, size = _CURVES[public.jwk["crv"]]
    key = ec.derive_private_key(int.from_bytes(_bytes(jwk, "d", size)), curve)
    point = key.public_key().public_numbers()
    if (_b64_int(point.x, size), _b64_int(point.y, size)) != (public.jwk["x"], public.jwk["y"]):
        raise InvalidKey("the private members are not those of the public key")
    native, algorithm = key.sign, _ECDSA[alg]

    def sign(data: bytes) -> bytes:
        r, s = decode_dss_signature(native(data, algorithm))
        return r.to_bytes(size) + s.to_bytes(size)

    return PrivateKey(public, sign, {"d": str(jwk["d"])})


def _private_okp(jwk: Mapping[str, object], public: PublicKey) -> PrivateKey:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(_bytes(jwk, "d", 32))
    if b64u(key.public_key().public_bytes_raw()) != public.jwk["x"]:
        raise InvalidKey("the private members are not those of the public key")
    return PrivateKey(public, key.sign, {"d": str(jwk["d"])})


def _private_rsa(jwk: Mapping[str, object], public: PublicKey) -> PrivateKey:
    if "oth" in jwk:
        raise InvalidKey("an RSA key of more than two primes")
    p, q, dp, dq, qi = (_int(jwk, name) for name in _CRT)
    numbers = rsa.RSAPublicNumbers(_int(jwk, "e"), _int(jwk, "n"))
    key = rsa.RSAPrivateNumbers(p, q, _int(jwk, "d"), dp, dq, qi, numbers).private_key()
    native, pad = key.sign, _PSS if public.alg == "PS256" else _PKCS1
    secret = {name: str(jwk[name]) for name in ("d", *_CRT)}
    return PrivateKey(public, lambda data: native(data, pad, _SHA256), secret)


_PRIVATE_READERS: dict[str, Callable[[Mapping[str, object], PublicKey], PrivateKey]] = {
    "EC": _private_ec,
    "OKP": _private_okp,
    "RSA": _private_rsa,
}


def _bytes(jwk: Mapping[str, object], name: str, size: int | None = None) -> bytes:
    """A base64url member; of a fixed `size`, RFC 7518 section 6.2.1.2. The value is never quoted: it may be private."""
    text = jwk.get(name)
    if not isinstance(text, str) or not text:
        raise InvalidKey(f"the key has no member `{name}`, or it is not a string")
    if len(text) > 1024:
        raise InvalidKey(f"`{name}` is too long")
    try:
        value = unb64u(text)
    except Malformed as error:
        raise InvalidKey(f"`{name}` is {error.message}") from None
    if size is not None and len(value) != size:
        raise InvalidKey(f"`{name}` has {len(value)} bytes instead of {size}")
    return value


def _int(jwk: Mapping[str, object], name: str) -> int:
    """A Base64urlUInt: RFC 7518 section 2, the fewest bytes that hold it."""
    value = _bytes(jwk, name)
    if value[0] == 0:
        raise InvalidKey(f"`{name}` begins with a zero byte")
    return int.from_bytes(value)


def _b64_int(value: int, size: int | None = None) -> str:
    return b64u(value.to_bytes((value.bit_length() + 7) // 8 if size is None else size))
