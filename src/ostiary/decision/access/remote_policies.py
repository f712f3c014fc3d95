"""Remote policies: Rego, or an external decision point. They are asked in JSON.

A question contains exactly the inputs that Cedar policies get, also the time (`now` in the context). Equal questions
are equal bytes. The verdict can therefore be requested before the decision, stored, and used again for the same
question.

    {"subject": entity, "action": {"name": .., "properties"?: {..}}, "resource": entity, "context": {..}}
    entity: {"type": .., "id": .., "attributes": {..}, "ancestors": [{"type": .., "id": ..}, ..]}

Entities within attributes and contexts are `{"type", "id"}`, sets are arrays, decimals are numbers, instants and
durations are nanoseconds. A value without a Cedar form is passed on as it was sent.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping

import msgspec

from ostiary.authorization.cedar import values
from ostiary.authorization.cedar.extensions import Datetime, Decimal, Duration, Ip, Unusable
from ostiary.authorization.cedar.values import Entities, Record, Uid

MAX_QUESTION = 256 << 10
MAX_SAID = 500
"""maximum length of a message, in characters"""
_encode = msgspec.json.Encoder(order="deterministic").encode
_MS = 1_000_000


class PolicyResult(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The result of one remote policy: whether it permits, the messages with which it forbids (none: it does not
    forbid), or its error.
    """

    policy: str
    permits: bool = False
    forbids: tuple[str, ...] = ()
    error: str = ""


RemoteVerdict = tuple[PolicyResult, ...]
RemoteSource = Callable[[bytes], RemoteVerdict]
"""A function that returns the verdict on a question. It never raises: an error is part of the result of a policy."""


def fail_all(policies: Mapping[str, bool], error: str) -> RemoteVerdict:
    """Return a verdict in which each of the policies has failed."""
    return tuple(PolicyResult(policy, error=error[:MAX_SAID]) for policy in policies)


def question(principal: Uid, action: Uid, resource: Uid, context: Record, entities: Entities) -> bytes:
    """Return the question to the remote policies about a request, as JSON. Raises ValueError for more than MAX_QUESTION
    bytes.
    """
    verb: dict[str, object] = {"name": action.id}
    if "action" in context:
        verb["properties"] = _plain(context["action"])
    members = {
        "subject": _entity(principal, entities),
        "action": verb,
        "resource": _entity(resource, entities),
        "context": {name: _plain(value) for name, value in context.items() if name != "action"},
    }
    encoded = _encode(members)
    if len(encoded) > MAX_QUESTION:
        raise ValueError(f"the question to remote policies has {len(encoded)} bytes; the limit is {MAX_QUESTION}")
    return encoded


def _entity(uid: Uid, entities: Entities) -> dict[str, object]:
    entity = entities.get(uid)
    if entity is None:
        return {"type": uid.type, "id": uid.id, "attributes": {}, "ancestors": []}
    return {
        "type": uid.type,
        "id": uid.id,
        "attributes": {name: _plain(value) for name, value in entity.attrs.items()},
        "ancestors": [_uid(up) for up in sorted(entity.lineage - {uid}, key=lambda up: (up.type, up.id))],
    }


def _uid(uid: Uid) -> dict[str, str]:
    return {"type": uid.type, "id": uid.id}


def _plain(value: object) -> object:
    """Return the JSON form of a Cedar value, or of its substitute in a set."""
    match value:
        case Uid():
            return _uid(value)
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case frozenset():
            return sorted((_plain(values.unkey(item)) for item in value), key=_encode)
        case Decimal():
            sign, (whole, rest) = "-" if value.units < 0 else "", divmod(abs(value.units), 10_000)
            return msgspec.Raw(f"{sign}{whole}.{rest:04}".encode())
        case Datetime() | Duration():
            return value.ms * _MS
        case Ip():
            kind = ipaddress.IPv4Address if value.bits == 32 else ipaddress.IPv6Address
            return f"{kind(value.address)}/{value.prefix}"
        case Unusable():
            return value.raw
        case _:
            return value
