"""An access request in the form of AuthZEN (Authorization API 1.0, section 5), and its translation to Cedar.

Types and names map literally. `{"type": "user", "id": "alice"}` is the entity `user::"alice"`; its properties are
attributes, and no property overrides the attribute `id`. The properties of the action are `context.action`. A JSON
integer is a long, another number a decimal, an array a set; a null value is absent. If Cedar cannot represent a value,
the policies that read the value fail (`ostiary.authorization.cedar.extensions.Unusable`).

This module does not build entities of registered types (`Agent`, `Tool` and others), because their attributes come from
the registry.
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
    """The subject or the resource of an AuthZEN access request, as the caller states it. `properties`: its
    attributes.
    """

    type: str
    id: str
    properties: dict[str, Any] | None = None


class Verb(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    name: str
    properties: dict[str, Any] | None = None


class EvaluationRequest(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    subject: Thing
    action: Verb
    resource: Thing
    context: dict[str, Any] | None = None

    @property
    def approval(self) -> str:
        """Return the id of the approval that the caller shows in `context.approval` to use it (AuthZEN Access Request
        and Approval Profile, Re-evaluation Mode); empty if there is none.
        """
        shown = (self.context or {}).get("approval")
        id = shown.get("id") if isinstance(shown, dict) else None
        return id if isinstance(id, str) else ""


class Sought(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The searched part of an AuthZEN search: a subject or resource with a type, but without an id. The candidates are
    all entities of this type that the server or the policy set knows.

    `properties`: attributes of each candidate of an unregistered type. An attribute that the policy set states for the
    candidate overrides the property of the same name.
    """

    type: str
    properties: dict[str, Any] | None = None

    def with_id(self, id: str) -> Thing:
        """Return the candidate with this id as a subject or resource, with the type and the properties of the
        search.
        """
        return Thing(self.type, id, self.properties)


class Search(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An AuthZEN search (section 8): an access request of which one part is searched. That part is the subject or the
    resource that is `Sought`, or the action, if `action` is None.
    """

    subject: Thing | Sought
    action: Verb | None
    resource: Thing | Sought
    context: dict[str, Any] | None = None

    def question_about(self, id: str) -> EvaluationRequest:
        """Return the access request about one candidate; `id`: the id of an entity, or the name of an action."""
        subject, action, resource = self.subject, self.action or Verb(id), self.resource
        return EvaluationRequest(
            subject.with_id(id) if isinstance(subject, Sought) else subject,
            action,
            resource.with_id(id) if isinstance(resource, Sought) else resource,
            self.context,
        )


class Unanswerable(Invalid):
    """Raised for a request that policies cannot represent, for example because its type cannot be a Cedar type. The
    request is denied.
    """

    code = "unanswerable"


REGISTERED = {"agent": "Agent", "Agent": "Agent", "tool": "Tool", "Tool": "Tool", "Resource": "Resource"}
"""Types whose entities are registered. AuthZEN clients may write `agent` and `tool`."""
_NO_TAGS: Record = {}
BARE = frozenset({"Owner", "Segment", "Action"})


def entity_of(thing: Thing, stated: Mapping[Uid, Entity]) -> Entity:
    """Return the Cedar entity of a subject or resource of an unregistered type. `stated`: the entities in the files of
    the policy set, whose attributes override the properties. An entity of a type in `BARE` has no attributes. Raises
    Unanswerable for a type that cannot be a Cedar type.
    """
    if not is_type_name(thing.type):
        raise Unanswerable(f"{thing.type[:100]!a} is not a type that policies can name")
    uid = Uid(thing.type, thing.id)
    if thing.type in BARE:
        return entity(uid)
    attrs = plain_record(thing.properties) if thing.properties else {}
    attrs["id"] = thing.id
    declared = stated.get(uid)
    if declared is not None:
        attrs.update(declared.attrs)
        return Entity(uid, attrs, declared.lineage, declared.tags)
    return Entity(uid, attrs, frozenset((uid,)), _NO_TAGS)


def context_of(question: EvaluationRequest, *, now: Record) -> Record:
    """Return the `context` that policies see: the context of the request, with the properties of the action as
    `action`, and the members of `now`. The context of the request cannot set these members.
    """
    if not question.context and not question.action.properties:
        return now
    context = record(question.context)
    context.pop("action", None)
    if question.action.properties:
        context["action"] = record(question.action.properties)
    return context | now


def time_context(now: int) -> Record:
    """Return the members of the context that state the present time. `now`: microseconds since the epoch."""
    return {"now": Datetime(now // 1000)}


def record(properties: dict[str, Any] | None) -> Record:
    """Return the Cedar record of a JSON object; an empty record for None."""
    return plain_record(properties) if properties else {}


def stated_assurance(context: Mapping[str, object]) -> dict[str, Any]:
    """Return the assurance of the agent's token that the context of a request states: `acr`, the `amr` that belongs to
    it, and `auth_time` in seconds since the epoch (None if it is not stated). Raises Unanswerable for values of another
    type.
    """
    acr, auth_time = context.get("acr", ""), context.get("auth_time")
    if not isinstance(acr, str):
        raise Unanswerable("`context.acr` is not a string")
    if auth_time is not None and not (type(auth_time) is int and 0 <= auth_time <= MAX_SECONDS):
        raise Unanswerable("`context.auth_time` is not a whole number of seconds since 1970")
    return {"acr": acr, "amr": AMRS.get(acr, []), "auth_time": auth_time}
