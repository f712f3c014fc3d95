"""How a guard asks the server what policies say that no guard can run, and the answer, which only the server gives.

The question is that of `ostiary.core.access.elsewhere`: what Cedar was asked. It is bound to the policies, to a token
of the guard's resource, and to one call, for which the guard throws a number. The answer is a compact JWS of type
`ostiary-said+jwt` under the server's feed key, and names the SHA-256 of what was asked, every byte of it: it counts for
that question and for no other, whoever stands between.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ostiary.core.access import Said
from ostiary.core.errors import Malformed, Unauthenticated
from ostiary.core.jose import JwkSet, PrivateKey, b64u, sign_jwt, verify_jws
from ostiary.core.report import Id

TYP = "ostiary-said+jwt"
MAX_ANSWER = 1 << 20
_encode = msgspec.json.Encoder().encode


class Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    call: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{22}\Z")]
    """a number that the guard threw"""
    token: Id
    """the token's `jti`"""
    policy: Annotated[str, Meta(min_length=1, max_length=64)]
    """the hash of the set"""
    question: msgspec.Raw


class Thing(msgspec.Struct, frozen=True):
    """A subject or a resource in a question; what else it has there, policies read and nobody checks."""

    type: str
    id: str


class Verb(msgspec.Struct, frozen=True):
    name: str


class Question(msgspec.Struct, frozen=True):
    """What of a question can be checked against what is known."""

    subject: Thing
    action: Verb
    resource: Thing
    context: dict[str, Any]


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    iss: str
    aud: str
    """the resource whose guard asked, by id"""
    asked: str
    said: tuple[Said, ...]


_decode_answer = msgspec.json.Decoder(Answer).decode


def render_ask(ask: Ask) -> bytes:
    return _encode(ask)


def parse_ask(body: bytes) -> tuple[Ask, Question]:
    """From a body that is strict JSON (no member twice). Raises Malformed."""
    try:
        ask = msgspec.json.decode(body, type=Ask)
        return ask, msgspec.json.decode(ask.question, type=Question)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(str(error)) from None


def digest(body: bytes) -> str:
    """By which an answer names what was asked."""
    return b64u(sha256(body).digest())


def render_answer(key: PrivateKey, answer: Answer) -> bytes:
    return sign_jwt(key, typ=TYP, claims=answer).encode()


def parse_answer(
    unverified_answer: bytes, *, keys: JwkSet, issuer: str, resource_id: str, asked: str
) -> tuple[Said, ...]:
    """What was said, if it is the answer to just that. Raises InvalidToken, Malformed, Unauthenticated."""
    try:
        payload = verify_jws(
            unverified_answer.decode("ascii"), key_for=keys.key_for, typ=(TYP,), max_bytes=MAX_ANSWER
        ).payload
        answer = _decode_answer(payload)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        raise Malformed("it is no answer of a decision point") from None
    if (answer.iss, answer.aud, answer.asked) != (issuer, resource_id, asked):
        raise Unauthenticated("it is the answer to another question")
    return answer.said
