"""Keys as JWK: EC P-256 and P-384, Ed25519, RSA of 2048 to 4096 bits; RFC 7517, RFC 7638.

A key without `alg` gets the default of its type: ES256, ES384, EdDSA, RS256. Stricter than RFC 7517: a public JWK with
private members is refused, and an RSA private key must have all of its CRT members.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature

from ostiary.protocol import canonical
from ostiary.protocol.jose.errors import InvalidKey, InvalidToken
from ostiary.protocol.jose.material import KINDS, PRIVATE_MEMBERS, Sign, Verify

MAX_KID = 256
_KTY = {alg: kty for kty, kind in KINDS.items() for alg in kind.algs}
ALGS = frozenset(_KTY)


@dataclass(frozen=True, slots=True, eq=False)
class PublicKey:
    """A key that verifies with exactly one algorithm."""

    kid: str
    """the JWK's `kid`, or its thumbprint if it has none"""
    alg: str
    """name of the algorithm, one of ALGS"""
    jwk: dict[str, str]
    """members of the public JWK, with `kid`, `alg` and `use`"""
    thumbprint: str
    """RFC 7638 with SHA-256, base64url"""
    _verify: Verify = field(repr=False)

    def verify(self, signature: bytes, data: bytes) -> None:
        """Verify that this key made the signature of `data`; an ECDSA signature is r || s. Raises InvalidToken
        otherwise.
        """
        try:
            self._verify(signature, data)
        except InvalidSignature:
            raise InvalidToken("the signature was not made by this key over this data") from None

    def accepts(self, alg: object) -> bool:
        """Return whether a header's `alg` is that of the key. For an Ed25519 key, `Ed25519` (RFC 9864)
        equals `EdDSA`.
        """
        return alg == self.alg or (self.alg == "EdDSA" and alg == "Ed25519")

    @property
    def bare_jwk(self) -> dict[str, str]:
        """Return the members of the JWK that its thumbprint covers."""
        return {name: self.jwk[name] for name in KINDS[self.jwk["kty"]].public}


@dataclass(frozen=True, slots=True, eq=False)
class PrivateKey:
    """A key that signs; `public` is the public key."""

    public: PublicKey
    sign: Sign = field(repr=False)
    """function that returns the signature of data; ECDSA signatures have the form r || s"""
    _secret: dict[str, str] = field(repr=False)

    def jwk(self) -> dict[str, str]:
        """Return the JWK with its private members, which may be stored only encrypted, or in a file of mode 0600."""
        return {**self.public.jwk, **self._secret}


def parse_public_jwk(jwk: object) -> PublicKey:
    """Parse a public key (RFC 7517). Raises InvalidKey for an unsupported, malformed or private key."""
    members = _members(jwk)
    if any(name in members for name in PRIVATE_MEMBERS):
        raise InvalidKey("a public key has private members", hint="the key is compromised: make a new one")
    return _public(members)


def parse_private_jwk(jwk: object, *, is_sound: bool = False) -> PrivateKey:
    """Parse a private JWK. Raises InvalidKey, also if the private and the public members belong to different keys.

    `is_sound`: true for an unchanged key that this server generated; then the test of the primes of an RSA key, which
    takes 30 ms, is omitted.
    """
    members = _members(jwk)
    public = _public(members)
    kind = KINDS[public.jwk["kty"]]
    try:
        sign = kind.signer(members, public.alg, is_sound)
    except ValueError:  # from the library; its message may quote the numbers
        raise InvalidKey("the private and public members belong to different keys") from None
    return PrivateKey(public, sign, {name: str(members[name]) for name in kind.secret})


def generate(alg: str, *, kid: str | None = None) -> PrivateKey:
    """Return a new key from the operating system's randomness (RSA: 2048 bits). Raises InvalidKey for an
    unknown `alg`.
    """
    if alg not in ALGS:
        raise InvalidKey(f"unknown algorithm {alg!r}", hint=f"use one of {', '.join(sorted(ALGS))}")
    kty = _KTY[alg]
    jwk = {"kty": kty, "alg": alg, **KINDS[kty].generate(alg)}
    return parse_private_jwk(jwk if kid is None else {**jwk, "kid": kid}, is_sound=True)


def _members(jwk: object) -> dict[str, object]:
    if not isinstance(jwk, dict):
        raise InvalidKey("a JWK must be a JSON object")
    if jwk.get("kty") not in tuple(KINDS):  # a tuple: the value need not be hashable
        raise InvalidKey(f"the key type (`kty`) is none of {', '.join(KINDS)}")
    return jwk


def _public(jwk: dict[str, object]) -> PublicKey:
    kind = KINDS[str(jwk["kty"])]
    algs, verifier = kind.read(jwk)
    alg = jwk.get("alg", algs[0])
    if not isinstance(alg, str) or alg not in algs:
        raise InvalidKey(f"the key is for {' or '.join(algs)}, its `alg` names another algorithm")
    if jwk.get("use", "sig") != "sig":
        raise InvalidKey("the key is not for signatures (`use`)")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or not {"verify", "sign"}.intersection(map(str, operations)):
        raise InvalidKey("the key is not for signatures (`key_ops`)")
    bare = {name: str(jwk[name]) for name in kind.public}
    thumbprint = canonical.digest(bare)  # RFC 7638 section 3
    kid = jwk.get("kid", thumbprint)
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID:
        raise InvalidKey(f"`kid` is not a string of 1 to {MAX_KID} characters")
    return PublicKey(kid, alg, {**bare, "kid": kid, "alg": alg, "use": "sig"}, thumbprint, verifier(alg))
