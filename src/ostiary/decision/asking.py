"""Requests of a guard for the verdicts of remote policies, and the answer, which only the server gives.

The question is that of `ostiary.decision.access.remote_policies`. It is bound to the policies, to a token of the
guard's resource, and to one call by a random number of the guard. The answer (`ostiary.protocol.signed`) is of type
`ostiary-said+jwt`.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ostiary.decision.access import PolicyResult
from ostiary.decision.report import Id
from ostiary.protocol import signed
from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Malformed

_encode = msgspec.json.Encoder().encode


class RemotePolicyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    call: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{22}\Z")]
    """a random number of the guard"""
    token: Id
    """the token's `jti`"""
    policy: Annotated[str, Meta(min_length=1, max_length=64)]
    """the hash of the set"""
    question: msgspec.Raw


class Thing(msgspec.Struct, frozen=True):
    """A subject or a resource in a question. The server does not check its other members, which policies may read."""

    type: str
    id: str


class Verb(msgspec.Struct, frozen=True):
    name: str


class Question(msgspec.Struct, frozen=True):
    """The parts of a question that the server can check against its own facts."""

    subject: Thing
    action: Verb
    resource: Thing
    context: dict[str, Any]


class RemotePolicyAnswer(signed.SignedAnswer, frozen=True, kw_only=True, forbid_unknown_fields=True):
    TYP, MAX_BYTES = "ostiary-said+jwt", 1 << 20

    results: tuple[PolicyResult, ...] = msgspec.field(name="said")


def render_ask(ask: RemotePolicyRequest) -> bytes:
    """Encode a request."""
    return _encode(ask)


def parse_ask(body: bytes) -> tuple[RemotePolicyRequest, Question]:
    """Parse a request from a body that is strict JSON (no member twice). Raises Malformed."""
    try:
        ask = json_decoder(RemotePolicyRequest)(body)
        return ask, json_decoder(Question)(ask.question)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(str(error)) from None
