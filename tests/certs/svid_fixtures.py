"""JWT-SVIDs and bundles that PyJWT and the library of X.509 made."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from ostiaryd.certs.model.bundle import ALGS

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
ID = "spiffe://example.org/agent/writer"
RSA = rsa.generate_private_key(65537, 2048)
CURVES = {"256": ec.SECP256R1(), "384": ec.SECP384R1(), "512": ec.SECP521R1()}
KEYS: dict[str, Any] = {
    alg: ec.generate_private_key(CURVES[alg[2:]]) if alg.startswith("ES") else RSA for alg in sorted(ALGS)
}


def jwk_of(alg: str, kid: str) -> dict[str, Any]:
    """Return the JWK as PyJWT writes it."""
    public = KEYS[alg].public_key()
    algorithm = jwt.algorithms.ECAlgorithm if alg.startswith("ES") else jwt.algorithms.RSAAlgorithm
    return {**json.loads(algorithm.to_jwk(public)), "kid": kid}


def token(alg: str = "ES256", *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
    """Return a token that PyJWT has signed."""
    content = {"sub": ID, "aud": ["api"], "exp": NOW // SECOND + 60} | claims
    content = {name: value for name, value in content.items() if value is not None}
    named = {"kid": "k"} | (headers or {})
    kept = {name: value for name, value in named.items() if value is not None or name == "typ"}
    return jwt.encode(content, KEYS[alg], alg, headers=kept)


def root(key: Any = None, *, is_authority: bool = True) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([]), datetime(2026, 1, 1, tzinfo=UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


def document(*keys: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"keys": list(keys), **more}).encode()


def x509_jwk(der: bytes, **more: Any) -> dict[str, Any]:
    return {"kty": "EC", "use": "x509-svid", "x5c": [base64.b64encode(der).decode()]} | more


def jwt_jwk(alg: str = "ES256", **more: Any) -> dict[str, Any]:
    return {**jwk_of(alg, "k"), "use": "jwt-svid"} | more
