"""Trust bundles: the keys of a trust domain as a JWK Set (SPIFFE Trust Domain and Bundle, section 4).

A JWK that cannot be used, or has an unknown `use` or `kty`, is ignored (4.1.3, 4.2). An empty set revokes every key of
the trust domain. Bundles of different trust domains are never merged (SPIFFE Federation, 4.2).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ostiary.protocol import canonical
from ostiary.protocol.certificate import load_certificate
from ostiary.protocol.errors import Invalid, Malformed
from ostiary.protocol.jose import InvalidToken, b64u, unb64u

MAX_BUNDLE = 256 << 10
MAX_KEYS = 128
MAX_KID = 256
MAX_SEQUENCE = (1 << 64) - 1
REFRESH_S = 300
"""Seconds between fetches of a bundle without `spiffe_refresh_hint` (6.1)."""
MIN_REFRESH_S, MAX_REFRESH_S = 10, 86_400
"""Minimum and maximum seconds between fetches of another trust domain's bundle."""
X509_USE, JWT_USE = "x509-svid", "jwt-svid"
_CURVES: dict[str, tuple[ec.EllipticCurve, int]] = {
    "P-256": (ec.SECP256R1(), 32),
    "P-384": (ec.SECP384R1(), 48),
    "P-521": (ec.SECP521R1(), 66),
}
_CURVE_OF_ALG = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
ALGS = frozenset(kind + size for kind in ("RS", "ES", "PS") for size in _HASHES)
"""Signature algorithms that a JWT-SVID may have (JWT-SVID section 2.1)."""
RSA_BITS = range(2048, 8193)
_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")


class JwtAuthority(NamedTuple):
    """A public key that verifies JWT-SVIDs."""

    kid: str
    jwk: dict[str, str]
    """the public members of the JWK, without `use` and `alg`"""
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey

    def verify(self, alg: str, signature: bytes, text: bytes) -> None:
        """Check that `signature` is a signature of `text` by this key with the algorithm `alg`. Raises InvalidToken
        otherwise.
        """
        hashed = _HASHES[alg[2:]]
        try:
            if isinstance(self.key, rsa.RSAPublicKey):
                pss = padding.PSS(padding.MGF1(hashed), hashed.digest_size)
                self.key.verify(signature, text, padding.PKCS1v15() if alg.startswith("RS") else pss, hashed)
            else:
                half = _CURVES[self.jwk["crv"]][1]
                if len(signature) != 2 * half:
                    raise InvalidToken(f"a signature with {alg} must have {2 * half} bytes")
                r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
                self.key.verify(encode_dss_signature(r, s), text, ec.ECDSA(hashed))
        except InvalidSignature:
            raise InvalidToken("the signature was not made by this key over this data") from None

    def accepts(self, alg: str) -> bool:
        """Return whether a key of this type can be used with the signature algorithm `alg`."""
        if isinstance(self.key, rsa.RSAPublicKey):
            return alg in ALGS and not alg.startswith("ES")
        return _CURVE_OF_ALG.get(alg) == self.jwk["crv"]


class TrustBundle(NamedTuple):
    """The keys of a trust domain: X.509 authorities in DER, and keys of JWT-SVIDs."""

    x509: tuple[bytes, ...]
    jwt: tuple[JwtAuthority, ...]
    sequence: int | None = None
    refresh_hint_s: int | None = None

    def find(self, kid: object, alg: str) -> JwtAuthority:
        """Return the key that verifies a JWT-SVID: the key with this `kid`; or, without `kid`, the only key for `alg`.
        Raises InvalidToken unless there is exactly one such key.
        """
        keys = [one for one in self.jwt if one.accepts(alg) and (kid is None or one.kid == kid)]
        if len(keys) != 1:
            raise InvalidToken(
                f"the trust domain must have one key for the `kid` and `alg` of the JWT-SVID, but has {len(keys)}",
                hint="get a new JWT-SVID",
                code="unknown_kid",
            )
        return keys[0]

    @property
    def jwt_jwks(self) -> list[dict[str, str]]:
        """Return the public JWKs of the keys that verify JWT-SVIDs."""
        return [one.jwk for one in self.jwt]

    @property
    def public_keys(self) -> frozenset[frozenset[tuple[str, str]]]:
        """Return the public members of the JWK of every key, without the `kid`, so that one key in two certificates
        counts as equal.
        """
        jwks = (*map(_jwk_of, self.x509), *self.jwt_jwks)
        return frozenset(frozenset((name, jwk[name]) for name in jwk if name != "kid") for jwk in jwks)

    @property
    def refresh_s(self) -> int:
        """Return the number of seconds after which the bundle must be fetched again: its refresh hint, but from 10 to
        86,400; `REFRESH_S` without a hint.
        """
        return min(max(self.refresh_hint_s or REFRESH_S, MIN_REFRESH_S), MAX_REFRESH_S)


EMPTY = TrustBundle((), ())


def parse_bundle(body: bytes) -> TrustBundle:
    """Return the bundle in a JSON document. Keys that cannot be used are ignored. Raises Malformed for other JSON,
    Invalid for too many keys, a private key, or a sequence number or refresh hint that is not an integer of 64 bits.
    """
    content = canonical.parse(body, max_bytes=MAX_BUNDLE)
    keys = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(keys, list):
        raise Malformed("the bundle is not a JSON object with an array `keys`")
    if len(keys) > MAX_KEYS:
        raise Invalid(f"the bundle has more than {MAX_KEYS} keys")
    jwks = [jwk for jwk in keys if isinstance(jwk, dict)]
    if any(name in jwk for jwk in jwks for name in _PRIVATE):
        raise Invalid(
            "the bundle publishes a private key", hint="the operator of the trust domain must replace the key"
        )
    roots = (_parse_root(jwk) for jwk in jwks if jwk.get("use") == X509_USE)
    authorities = (parse_jwt_authority(jwk) for jwk in jwks if jwk.get("use") == JWT_USE)
    return TrustBundle(
        tuple(dict.fromkeys(root for root in roots if root is not None)),
        tuple({one.kid: one for one in authorities if one is not None}.values()),
        _number(content, "spiffe_sequence"),
        _number(content, "spiffe_refresh_hint"),
    )


def render_bundle(bundle: TrustBundle) -> bytes:
    """Return a bundle as a JSON document."""
    keys: list[Mapping[str, object]] = [
        {**_jwk_of(root), "use": X509_USE, "x5c": [base64.b64encode(root).decode()]} for root in bundle.x509
    ]
    keys += [{**one.jwk, "use": JWT_USE} for one in bundle.jwt]
    numbers = {"spiffe_sequence": bundle.sequence, "spiffe_refresh_hint": bundle.refresh_hint_s}
    return msgspec.json.encode({"keys": keys, **{name: value for name, value in numbers.items() if value is not None}})


def render_jwt_keys(authorities: Sequence[JwtAuthority]) -> bytes:
    """Return the keys that verify JWT-SVIDs as a plain JWK Set (SPIFFE Workload API section 6.2.2)."""
    return msgspec.json.encode({"keys": [one.jwk for one in authorities]})


def parse_jwt_authority(jwk: Mapping[str, object]) -> JwtAuthority | None:
    """Return the key that a JWK describes, for the verification of JWT-SVIDs; None if the JWK cannot be used (JWT-SVID
    section 6.1: `kid` is required).
    """
    kid = jwk.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID:
        return None
    try:
        if jwk.get("kty") == "EC":
            crv = str(jwk.get("crv"))
            curve, size = _CURVES[crv]
            x, y = (unb64u(str(jwk[name])) for name in ("x", "y"))
            if len(x) != size or len(y) != size:
                return None
            point = ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)
            return JwtAuthority(kid, {"kty": "EC", "kid": kid, "crv": crv, "x": b64u(x), "y": b64u(y)}, point)
        if jwk.get("kty") == "RSA":
            n, e = (int.from_bytes(unb64u(str(jwk[name])), "big") for name in ("n", "e"))
            if n.bit_length() not in RSA_BITS:
                return None
            key = rsa.RSAPublicNumbers(e, n).public_key()
            return JwtAuthority(kid, {"kty": "RSA", "kid": kid, "n": _uint(n), "e": _uint(e)}, key)
    except (KeyError, ValueError, Malformed):
        return None
    return None


def _parse_root(jwk: Mapping[str, object]) -> bytes | None:
    """Return, in DER, the certificate of the X.509 authority that a JWK describes: the first value of `x5c` (X509-SVID
    section 6.2).

    Return None if the certificate is missing or malformed, is not an authority's, or has a weak key, or a key that a
    JWK cannot represent.
    """
    values = jwk.get("x5c")
    if not isinstance(values, list) or not values or not isinstance(values[0], str):
        return None
    try:
        certificate = load_certificate(base64.b64decode(values[0], validate=True))
        if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return None
        der = certificate.public_bytes(Encoding.DER)
        _jwk_of(der)  # this server could not publish such a key again
    except (ValueError, Malformed, Invalid, x509.ExtensionNotFound):
        return None
    return der


def _number(content: Mapping[str, object], name: str) -> int | None:
    value = content.get(name)
    if value is not None and (type(value) is not int or not 0 <= value <= MAX_SEQUENCE):
        raise Invalid(f"`{name}` of the bundle is not an integer of 64 bits")
    return value


def _jwk_of(root: bytes) -> dict[str, str]:
    """Return the public key of a certificate as a JWK (RFC 7518 section 6, RFC 8037)."""
    key = x509.load_der_x509_certificate(root).public_key()
    match key:
        case ec.EllipticCurvePublicKey():
            crv = next((name for name, (curve, _) in _CURVES.items() if curve.name == key.curve.name), "")
            if not crv:
                raise Invalid(
                    f"the key of the authority is on the curve {key.curve.name}, which a trust bundle cannot contain",
                    hint="use P-256",
                )
            point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
            x, y = point[: len(point) // 2], point[len(point) // 2 :]
            return {"kty": "EC", "crv": crv, "x": b64u(x), "y": b64u(y)}
        case rsa.RSAPublicKey():
            if key.key_size not in RSA_BITS:
                raise Invalid(f"the authority has an RSA key of {key.key_size} bits", hint="use 2048 bits or more")
            numbers = key.public_numbers()
            return {"kty": "RSA", "n": _uint(numbers.n), "e": _uint(numbers.e)}
        case ed25519.Ed25519PublicKey():
            return {"kty": "OKP", "crv": "Ed25519", "x": b64u(key.public_bytes(Encoding.Raw, PublicFormat.Raw))}
        case _:
            raise Invalid("the key of the authority has a type that a trust bundle cannot contain")


def _uint(number: int) -> str:
    return b64u(number.to_bytes((number.bit_length() + 7) // 8, "big"))
