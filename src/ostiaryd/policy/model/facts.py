"""The facts of a decision, stored beside its ledger entry, so that another policy set can decide the same request
later.

The entry contains only the digest of the facts. The facts are deleted after some time, and the ledger stays complete.
The facts contain a salt, so that deleted facts cannot be guessed from their digest.

The facts contain the attributes of registered agents and resources, the digests of catalogues for tools, and the
statements of the caller, without secrets and long texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from ostiary.authorization.cedar.render import render_record
from ostiary.decision.access import Decision, Kept, MemberSizes, ResolvedCall, arguments_to_record, members_to_record
from ostiary.decision.access.recorded import ANYTHING, MAX_TEXT, MAX_TOGETHER
from ostiary.protocol.decoding import json_decoder
from ostiaryd.policy.model.questions import EvaluationRequest, Thing, Verb


class AgentSeen(msgspec.Struct, frozen=True, array_like=True, tag="agent", gc=False):
    """The attributes of an agent at the time of a decision, stored for its replay. `model` and `risk_tier` are None if
    they were not stored.
    """

    id: str
    owner: str
    segment: str
    model: str | None = None
    risk_tier: str | None = None


class ResourceSeen(msgspec.Struct, frozen=True, array_like=True, tag="resource", gc=False):
    """The attributes of a resource at the time of a decision, stored for its replay. `name` is empty for an
    unregistered resource; `catalogue` is the digest of its catalogue of tools, empty for none.
    """

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
    """The attributes of a secret at the time of a decision, stored for its replay: mount, path, and the id of the agent
    in whose folder the secret is (empty if there is none).
    """

    mount: str
    path: str
    agent: str = ""


Seen = AgentSeen | ResourceSeen | ToolSeen | SecretSeen


NOTHING = msgspec.Raw(b"")


class Posed(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """A question that policies answered, with the stored facts about it, so that it can be replayed. A member of
    `principal`, `resource` or `context`, which the server knew, takes precedence over the same member of `question`,
    which the caller stated.

    `question`: None for a call of a tool, an issuance or a delegation, which the other members describe completely.
    `context` is in Cedar's JSON, without the time and the arguments. `arguments`: the stored arguments, None if none
    were stored; `hidden`: the names of arguments whose values were not stored, or of members of `question`.
    """

    question: EvaluationRequest | None = None
    principal: Seen | None = None
    action: str = ""
    resource: Seen | None = None
    context: msgspec.Raw = NOTHING
    arguments: dict[str, Any] | None = None
    hidden: tuple[str, ...] = ()
    approved: tuple[str, ...] = ()
    """Ids of the asking policies whose approval had been given for the request."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """The stored facts of one ledger entry: for each of its decisions, the question that the policies answered, or None
    if they were not asked. `at`: the time of the decisions in microseconds. `posed` must be the last member, as
    `add_asked` requires.
    """

    salt: str
    at: int
    posed: list[Posed | None] = msgspec.field(name="asked")


_encode = msgspec.json.Encoder().encode
_decode = json_decoder(Facts)


def question_to_store(posed: Posed, *, secrets: frozenset[str] | None, sizes: MemberSizes) -> Posed:
    """Return the AuthZEN request `posed` with only the members that are stored. `secrets`: the names of the secret
    arguments in `context.arguments`; None: all are secret.
    """
    question, room, hidden = posed.question, MAX_TOGETHER, set[str]()
    assert question is not None

    def keep(
        stated: dict[str, Any] | None, name: str = "", never: frozenset[str] = frozenset()
    ) -> dict[str, Any] | None:
        nonlocal room
        if not stated:
            return stated
        kept, left_out, room = members_to_record(stated, room, sizes, never=never)
        hidden.update([name] if name and left_out else left_out)
        return kept

    subject, action, target, stated = question.subject, question.action, question.resource, question.context
    if any(len(word) > MAX_TEXT for word in (subject.type, subject.id, action.name, target.type, target.id)):
        hidden.add(ANYTHING)
        subject, action, target, stated = _cut(subject), Verb(action.name[:MAX_TEXT]), _cut(target), None
    stored = EvaluationRequest(
        replace(subject, properties=keep(subject.properties)),
        replace(action, properties=keep(action.properties, "action")),
        replace(target, properties=keep(target.properties)),
        keep(stated, never=_ARGUMENTS if _has_secret((stated or {}).get("arguments"), secrets) else frozenset()),
    )
    return replace(posed, question=stored, hidden=tuple(sorted(hidden)))


_ARGUMENTS = frozenset({"arguments"})


def _has_secret(arguments: object, secrets: frozenset[str] | None) -> bool:
    """Return whether arguments of a tool, as a caller states them, may contain a secret argument."""
    if not arguments or secrets is None:
        return bool(arguments)
    return not secrets.isdisjoint(arguments) if isinstance(arguments, dict) else bool(secrets)


def _cut(thing: Thing) -> Thing:
    return Thing(thing.type[:MAX_TEXT], thing.id[:MAX_TEXT])


def encode_context(context: Mapping[str, object] | msgspec.Raw) -> msgspec.Raw:
    """Return a context as JSON in Cedar's form; a context that is encoded already is returned unchanged."""
    return context if isinstance(context, msgspec.Raw) else msgspec.Raw(_encode(context))


def encode_facts(facts: Facts) -> bytes:
    """Return facts as JSON."""
    return _encode(facts)


def add_asked(facts: bytes, posed: Sequence[Posed | None]) -> bytes:
    """Return the JSON text `facts` (`Facts`) with the questions `posed` appended."""
    return facts[: -len(b"]}")] + b"," + _encode(posed)[len(b"[") :] + b"}"


def decode_facts(body: bytes) -> Facts:
    """Return the facts in a stored JSON text. Raises msgspec.DecodeError for any other text."""
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
    """Return the ids of the agents in the delegation chain of a request, the nearest first; empty if there are none."""
    if posed is None or not posed.context:
        return []
    return [one.agent.name.id for one in sorted(_decode_line(posed.context).chain, key=lambda one: one.step)]


def posed_call(call: ResolvedCall, decision: Decision, *, approved: Sequence[str] = ()) -> Posed | None:
    """Return the question about a call that policies answered, with the facts to store; None if the policies were not
    asked. `approved`: ids of the policies that ask for approval and whose approval had been given.
    """
    if decision.arguments is None:
        return None
    assert call.ready is not None
    principal, resource = call.principal, call.facts.resource
    claims = principal.claims
    facts = AgentSeen(claims.client_id, claims.owner, claims.segment, claims.model, claims.risk_tier)
    where = ToolSeen(resource.name, resource.uri, resource.segment, resource.catalogue_hash, call.tool)
    kept = arguments_to_record(decision.arguments, call.ready.secrets)
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
    """Return the facts of a call that are stored for a replay: its agent, its tool, its context and its arguments."""
    return Posed(
        principal=agent,
        resource=tool,
        context=encode_context(context),
        arguments=kept.arguments,
        hidden=tuple(kept.hidden),
        approved=tuple(approved),
    )
