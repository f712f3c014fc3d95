"""JOSE, the standard for signed tokens and keys, with all choices made: compact JWS (RFC 7515), JWT (RFC 7519), keys
(RFC 7517, 7518, 8037, 9864, 7638).

Each key has exactly one algorithm. A token cannot choose the algorithm, the key (`jwk`, `jku`, `x5u` and `x5c` are not
read) or extensions (`crit` and `b64` are refused). There are no symmetric algorithms, no `none`, and no encryption.
Only one spelling of each value is accepted: base64url without padding and stray bits, JSON without repeated members.
"""

from ostiary.protocol.jose.encoding import b64u, unb64u
from ostiary.protocol.jose.errors import InvalidKey, InvalidToken
from ostiary.protocol.jose.jws import (
    MAX_SECONDS,
    MAX_TOKEN_BYTES,
    Header,
    Jws,
    check_times,
    media_type,
    numeric_date,
    parse_claims,
    parse_header,
    parse_jws,
    protect,
    sign_jws,
    sign_jwt,
    verify_jws,
    verify_jwt,
)
from ostiary.protocol.jose.keys import (
    ALGS,
    PrivateKey,
    PublicKey,
    generate,
    parse_private_jwk,
    parse_public_jwk,
)
from ostiary.protocol.jose.keyset import JwkSet
from ostiary.protocol.jose.material import render_public_jwk

__all__ = [
    "ALGS",
    "MAX_SECONDS",
    "MAX_TOKEN_BYTES",
    "Header",
    "InvalidKey",
    "InvalidToken",
    "JwkSet",
    "Jws",
    "PrivateKey",
    "PublicKey",
    "b64u",
    "check_times",
    "generate",
    "media_type",
    "numeric_date",
    "parse_claims",
    "parse_header",
    "parse_jws",
    "parse_private_jwk",
    "parse_public_jwk",
    "protect",
    "render_public_jwk",
    "sign_jws",
    "sign_jwt",
    "unb64u",
    "verify_jws",
    "verify_jwt",
]
