"""Signed answers of the server to guards: a compact JWS under the server's feed key, with a type for each kind of
question.

An answer contains the SHA-256 of the whole question, which includes a random number of the guard. The answer is
therefore valid only for this question, also if another party forwards it.
"""

from __future__ import annotations

from hashlib import sha256
from typing import ClassVar, TypeVar

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Malformed, Unauthenticated
from ostiary.protocol.jose import JwkSet, PrivateKey, b64u, sign_jwt, verify_jws


class SignedAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The members that every signed answer of the server to a guard has."""

    TYP: ClassVar[str]
    MAX_BYTES: ClassVar[int]

    iss: str
    aud: str
    """id of the resource whose guard sent the question"""
    question_digest: str = msgspec.field(name="asked")
    """`digest` of the question to which this is the answer"""


T = TypeVar("T", bound=SignedAnswer)


def digest(body: bytes) -> str:
    """Return the digest of the question `body`, which an answer contains."""
    return b64u(sha256(body).digest())


def render_answer(key: PrivateKey, answer: SignedAnswer) -> bytes:
    """Return an answer to a guard as a compact JWS that `key` signs."""
    return sign_jwt(key, typ=answer.TYP, claims=answer).encode()


def parse_answer(
    unverified_answer: bytes, kind: type[T], *, body: bytes, keys: JwkSet, issuer: str, resource_id: str
) -> T:
    """Return the answer after verifying its signature, and that it answers exactly the question `body`. Raises
    InvalidToken for an invalid signature or another `typ`, Malformed for other content, Unauthenticated for an answer
    to another question, of another issuer or for another resource.
    """
    try:
        payload = verify_jws(
            unverified_answer.decode("ascii"), key_for=keys.key_for, typ=(kind.TYP,), max_bytes=kind.MAX_BYTES
        ).payload
        answer = json_decoder(kind)(payload)
    except (UnicodeDecodeError, msgspec.DecodeError):
        raise Malformed(f"the answer is not a valid {kind.TYP}") from None
    if (answer.iss, answer.aud, answer.question_digest) != (issuer, resource_id, digest(body)):
        raise Unauthenticated("the signed answer is for another request")
    return answer
