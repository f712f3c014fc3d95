"""A question as AuthZEN asks it (Authorization API 1.0, section 5), and as Cedar hears it.

Types and names map literally: `{"type": "user", "id": "alice"}` is `user::"alice"` with the properties as attributes,
and besides them `id`, which no property overrides. Properties of the action are `context.action`. JSON integers are
longs, other numbers decimals, arrays sets; null is absent. A value that Cedar cannot hold fails the policies that read
it (`ostiary.authorization.cedar.extensions.Unusable`).

The registry's own types (`Agent`, `Tool`, ..) are not made here: their attributes are for the registry to say.
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
        """The id of the approval that is shown with it (ARAP, Re-evaluation Mode); empty for none."""
        shown = (self.context or {}).get("approval")
        id = shown.get("id") if isinstance(shown, dict) else None
        return id if isinstance(id, str) else ""


class Sought(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The sought entities of a search: those of a type. The properties apply to each, unless the
    entity states others.
    """

    type: str
    properties: dict[str, Any] | None = None

    def named(self, id: str) -> Thing:
        """Return the entity with this id."""
        return Thing(self.type, id, self.properties)


class Search(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A question with one part left open (section 8): the part that is `Sought`, or the action that is None."""

    subject: Thing | Sought
    action: Verb | None
    resource: Thing | Sought
    context: dict[str, Any] | None = None

    def question_about(self, id: str) -> Question:
        """The question about one candidate."""
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
"""Types whose entities are registered; `agent` and `tool` are how AuthZEN peers spell them."""
_NO_TAGS: Record = {}
BARE = frozenset({"Owner", "Segment", "Action"})


def entity_of(thing: Thing, stated: Mapping[Uid, Entity]) -> Entity:
    """Return the entity of an unregistered type. Properties do not override the statements of the set. Raises
    Unanswerable.
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
    """Return the context that the caller sends, with `action` and all of `now`, which no caller may send."""
    if not question.context and not question.action.properties:
        return now
    context = record(question.context)
    context.pop("action", None)
    if question.action.properties:
        context["action"] = record(question.action.properties)
    return context | now


def moment(now: int) -> Record:
    """Return the time in the context; `now` in microseconds."""
    return {"now": Datetime(now // 1000)}


def record(properties: dict[str, Any] | None) -> Record:
    """A Cedar record from a JSON object."""
    return plain_record(properties) if properties else {}


def proved(context: Mapping[str, object]) -> dict[str, Any]:
    """Return the assurance that the caller read from the agent's token: `acr`, and `auth_time` in seconds."""
    acr, auth_time = context.get("acr", ""), context.get("auth_time")
    if not isinstance(acr, str):
        raise Unanswerable("`context.acr` is not a string")
    if auth_time is not None and not (type(auth_time) is int and 0 <= auth_time <= MAX_SECONDS):
        raise Unanswerable("`context.auth_time` is not a number of seconds since 1970")
    return {"acr": acr, "amr": AMRS.get(acr, []), "auth_time": auth_time}
