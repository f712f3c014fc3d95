"""Requests of a guard for the verdicts of remote policies, and the answer, which only the server gives.

The question has the form of `ostiary.decision.access.remote_policies`. The request binds the question to a policy set,
to a token for the guard's resource, and, by a random number of the guard, to one call. The answer
(`ostiary.protocol.signed`) has the type `ostiary-said+jwt`.
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
    """random number with which the guard identifies the call"""
    token: Id
    """`jti` of the token of the call"""
    policy: Annotated[str, Meta(min_length=1, max_length=64)]
    """hash of the policy set that decides"""
    question: msgspec.Raw


class Thing(msgspec.Struct, frozen=True):
    """The subject or the resource in a question to remote policies: the members that the server checks. Policies may
    read further members, which the server does not check.
    """

    type: str
    id: str


class Verb(msgspec.Struct, frozen=True):
    name: str


class Question(msgspec.Struct, frozen=True):
    """The parts of a question to remote policies that the server compares with its own facts."""

    subject: Thing
    action: Verb
    resource: Thing
    context: dict[str, Any]


class RemotePolicyAnswer(signed.SignedAnswer, frozen=True, kw_only=True, forbid_unknown_fields=True):
    TYP, MAX_BYTES = "ostiary-said+jwt", 1 << 20

    results: tuple[PolicyResult, ...] = msgspec.field(name="said")


def render_ask(ask: RemotePolicyRequest) -> bytes:
    """Return the request for the verdict of remote policies as JSON."""
    return _encode(ask)


def parse_ask(body: bytes) -> tuple[RemotePolicyRequest, Question]:
    """Return the request in a JSON body, and the parts of its question that the server checks. Raises Malformed
    for any other body.
    """
    try:
        ask = json_decoder(RemotePolicyRequest)(body)
        return ask, json_decoder(Question)(ask.question)
    except msgspec.DecodeError as error:
        raise Malformed(f"the body is not a request for the verdict of remote policies: {error}") from None
