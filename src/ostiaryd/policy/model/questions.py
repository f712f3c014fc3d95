"""A question as AuthZEN asks it (Authorization API 1.0, section 5), and the same question in Cedar's terms.

Types and names map literally: `{"type": "user", "id": "alice"}` is `user::"alice"` with the properties as attributes,
and with the attribute `id`, which no property overrides. Properties of the action are `context.action`. JSON integers
are longs, other numbers decimals, arrays sets; null is absent. A value that Cedar cannot hold fails the policies that
read the value (`ostiary.authorization.cedar.extensions.Unusable`).

Entities of registered types (`Agent`, `Tool`, ..) are not built here: their attributes come from the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ostiary.authorization.arguments import plain_record
from ostiary.authorization.assurance import AMRS
from ostiary.authorization.cedar.extensions import Datetime
from ostiary.authorization.cedar.values import Entity, Record, Uid, entity, is_type_name
from ostiary.protocol.errors import Invalid
from ostiary.protocol.jose import MAX_SECONDS


class Thing(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A subject or a resource."""

    type: str
    id: str
    properties: dict[str, Any] | None = None


class Verb(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    name: str
    properties: dict[str, Any] | None = None


class Question(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    subject: Thing
    action: Verb
    resource: Thing
    context: dict[str, Any] | None = None

    @property
    def approval(self) -> str:
        """Return the id of the approval that the request shows (ARAP, Re-evaluation Mode); empty without one."""
        shown = (self.context or {}).get("approval")
        id = shown.get("id") if isinstance(shown, dict) else None
        return id if isinstance(id, str) else ""


class Sought(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The open part of a search: the entities of a type. The properties apply to each entity, unless the policy
    set states others.
    """

    type: str
    properties: dict[str, Any] | None = None

    def named(self, id: str) -> Thing:
        """Return the entity with this id."""
        return Thing(self.type, id, self.properties)


class Search(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A question with one open part (section 8): the part that is `Sought`, or the action if it is None."""

    subject: Thing | Sought
    action: Verb | None
    resource: Thing | Sought
    context: dict[str, Any] | None = None

    def question_about(self, id: str) -> Question:
        """Return the question about one candidate."""
        subject, action, resource = self.subject, self.action or Verb(id), self.resource
        return Question(
            subject.named(id) if isinstance(subject, Sought) else subject,
            action,
            resource.named(id) if isinstance(resource, Sought) else resource,
            self.context,
        )


class Unanswerable(Invalid):
    """No policy can match the request, so the answer is a denial."""

    code = "unanswerable"


REGISTERED = {"agent": "Agent", "Agent": "Agent", "tool": "Tool", "Tool": "Tool", "Resource": "Resource"}
"""Types whose entities are registered. AuthZEN clients may write `agent` and `tool`."""
_NO_TAGS: Record = {}
BARE = frozenset({"Owner", "Segment", "Action"})


def entity_of(thing: Thing, stated: Mapping[Uid, Entity]) -> Entity:
    """Return the entity of an unregistered type. Attributes that the policy set states override the properties.
    Raises Unanswerable.
    """
    if not is_type_name(thing.type):
        raise Unanswerable(f"{thing.type[:100]!a} is not a type that policies can name")
    uid = Uid(thing.type, thing.id)
    if thing.type in BARE:
        return entity(uid)
    attrs = record(thing.properties)
    attrs["id"] = thing.id
    declared = stated.get(uid)
    if declared is not None:
        attrs.update(declared.attrs)
        return Entity(uid, attrs, declared.lineage, declared.tags)
    return Entity(uid, attrs, frozenset((uid,)), _NO_TAGS)


def context_of(question: Question, *, now: Record) -> Record:
    """Return the context that the caller sends, with the properties of the action as `action`, and with all of
    `now`. The caller can set neither.
    """
    if not question.context and not question.action.properties:
        return now
    context = record(question.context)
    context.pop("action", None)
    if question.action.properties:
        context["action"] = record(question.action.properties)
    return context | now


def moment(now: int) -> Record:
    """Return the member of the context with the time; `now` in microseconds."""
    return {"now": Datetime(now // 1000)}


def record(properties: dict[str, Any] | None) -> Record:
    """Return a Cedar record from a JSON object."""
    return plain_record(properties) if properties else {}


def proved(context: Mapping[str, object]) -> dict[str, Any]:
    """Return the assurance of the agent's token as the caller states it: `acr`, its `amr`, and `auth_time` in
    seconds. Raises Unanswerable.
    """
    acr, auth_time = context.get("acr", ""), context.get("auth_time")
    if not isinstance(acr, str):
        raise Unanswerable("`context.acr` is not a string")
    if auth_time is not None and not (type(auth_time) is int and 0 <= auth_time <= MAX_SECONDS):
        raise Unanswerable("`context.auth_time` is not a number of seconds since 1970")
    return {"acr": acr, "amr": AMRS.get(acr, []), "auth_time": auth_time}
