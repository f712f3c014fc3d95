"""Private keys as PEM."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ostiary.protocol import jose


def pem(key: jose.PrivateKey) -> str:
    number = int.from_bytes(jose.unb64u(key.jwk()["d"]))
    plain = serialization.NoEncryption()
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return ec.derive_private_key(number, ec.SECP256R1()).private_bytes(encoding, form, plain).decode()
