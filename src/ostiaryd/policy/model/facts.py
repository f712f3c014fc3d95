"""The facts of a decision, stored beside its entry: sufficient to ask other policies the same question.

An entry has the digest of its facts. The facts are deleted after some time; the ledger remains complete. A salt in the
facts prevents guessing deleted facts from their digest.

Registered objects are stored by the content of their entities, tools by the digest of their catalogue. Statements of a
caller are stored unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ostiary.authorization.cedar.render import render_record
from ostiary.decision.access import Decision, Kept, ResolvedCall, keep
from ostiary.protocol.decoding import json_decoder
from ostiaryd.policy.model.questions import Question


class AgentSeen(msgspec.Struct, frozen=True, array_like=True, tag="agent", gc=False):
    """The facts of an agent. `model` and `risk_tier` are None if they were not stored."""

    id: str
    owner: str
    segment: str
    model: str | None = None
    risk_tier: str | None = None


class ResourceSeen(msgspec.Struct, frozen=True, array_like=True, tag="resource", gc=False):
    """The facts of a resource. An unregistered resource has an empty name. `catalogue` is a digest of the catalogue."""

    name: str
    uri: str
    segment: str = ""
    catalogue: str = ""


class ToolSeen(msgspec.Struct, frozen=True, array_like=True, tag="tool", gc=False):
    name: str
    uri: str
    segment: str
    catalogue: str
    tool: str


class SecretSeen(msgspec.Struct, frozen=True, array_like=True, tag="secret", gc=False):
    """The facts of a secret; `agent` is the agent in whose folder the secret is."""

    mount: str
    path: str
    agent: str = ""


Seen = AgentSeen | ResourceSeen | ToolSeen | SecretSeen


NOTHING = msgspec.Raw(b"")


class Posed(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """A question that policies answered. If `principal`, `resource` or `context` lacks a member, `question` has the
    value; otherwise their own value takes precedence.

    `context` is in Cedar's JSON, without the time and the arguments; `access.keep` selects the arguments that are
    stored.
    """

    question: Question | None = None
    principal: Seen | None = None
    action: str = ""
    resource: Seen | None = None
    context: msgspec.Raw = NOTHING
    arguments: dict[str, Any] | None = None
    hidden: list[str] = []
    approved: list[str] = []
    """Names of the policies whose demand for approval was met by an approval."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """The questions of the decisions of one entry at `at` (microseconds); None stands for a decision without a
    question to policies. `posed` is the last member: `add_asked` relies on that.
    """

    salt: str
    at: int
    posed: list[Posed | None] = msgspec.field(name="asked")


_encode = msgspec.json.Encoder().encode
_decode = json_decoder(Facts)


def encode_context(context: Mapping[str, object] | msgspec.Raw) -> msgspec.Raw:
    """Encode a context that is in Cedar's JSON."""
    return context if isinstance(context, msgspec.Raw) else msgspec.Raw(_encode(context))


def encode_facts(facts: Facts) -> bytes:
    """Encode facts."""
    return _encode(facts)


def add_asked(facts: bytes, posed: Sequence[Posed | None]) -> bytes:
    """Append questions to encoded facts."""
    return facts[: -len(b"]}")] + b"," + _encode(posed)[len(b"[") :] + b"}"


def decode_facts(body: bytes) -> Facts:
    """Decode stored facts of a decision. Raises msgspec.DecodeError."""
    return _decode(body)


class _Name(msgspec.Struct):
    id: str


class _Entity(msgspec.Struct):
    name: _Name = msgspec.field(name="__entity")


class _Step(msgspec.Struct):
    agent: _Entity
    step: int


class _Line(msgspec.Struct):
    chain: list[_Step] = []


_decode_line = json_decoder(_Line)


def actors_of(posed: Posed | None) -> list[str]:
    """Return the agents through which the request came, the nearest first."""
    if posed is None or not posed.context:
        return []
    return [one.agent.name.id for one in sorted(_decode_line(posed.context).chain, key=lambda one: one.step)]


def posed_call(call: ResolvedCall, decision: Decision, *, approved: Sequence[str] = ()) -> Posed | None:
    """Return the question that the policies answered about the call; None if the policies were not asked."""
    if decision.arguments is None:
        return None
    assert call.ready is not None
    principal, resource = call.principal, call.facts.resource
    claims = principal.claims
    facts = AgentSeen(claims.client_id, claims.owner, claims.segment, claims.model, claims.risk_tier)
    where = ToolSeen(resource.name, resource.uri, resource.segment, resource.catalogue_hash, call.tool)
    kept = keep(decision.arguments, call.ready.secrets)
    context = principal.recorded
    if decision.call_context is not None:
        context = encode_context(render_record({**principal.context, **decision.call_context}))
    return call_seen(facts, where, context, kept, approved=approved)


def call_seen(
    agent: AgentSeen,
    tool: ToolSeen,
    context: Mapping[str, object] | msgspec.Raw,
    kept: Kept,
    *,
    approved: Sequence[str] = (),
) -> Posed:
    """Return the question about a call, from its facts."""
    return Posed(
        principal=agent,
        resource=tool,
        context=encode_context(context),
        arguments=kept.arguments,
        hidden=kept.hidden,
        approved=list(approved),
    )
