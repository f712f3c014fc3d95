"""Entities that a policy set states, `*.entities.json`, besides agents and tools.

Cedar's JSON for entities (docs.cedarpolicy.com, "Entities syntax"): a list of `{uid, attrs, parents, tags}`. With them,
groups apply wherever a policy decides, and searches have candidates. A set cannot state agents, tools, and other
registered entities. If the schema has an attribute `id`, it is filled in; a set can give it no other value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import cedarpy
import msgspec

from ostiary.authorization.cedar.values import Entity, Uid, parse_entities
from ostiary.decision.access import BASE_TYPES
from ostiary.protocol import canonical
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Invalid, Malformed, Refused
from ostiaryd.policy.model.files import ENTITIES, of_kind
from ostiaryd.policy.model.vocabulary import Vocabulary, unknown_type_message

MAX_FILE_BYTES = 1 << 20
MAX_ENTITIES = 10_000
MAX_ANCESTORS = 64
"""Maximum number of ancestors of an entity, because computing them takes time in the square of the depth."""
MAX_DEPTH = 32

Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode


def read_entities(files: Mapping[str, str], vocabulary: Vocabulary) -> tuple[dict[Uid, Entity], str]:
    """Return the entities in the entity files of a policy set, and the same entities as one JSON text (empty for none).
    Raises Malformed for JSON that is not a list of entities, Invalid for an entity of a type that the server itself
    states or that the schema lacks, and for too many entities.
    """
    items = [
        _completed(name, item, vocabulary) for name, text in of_kind(files, ENTITIES) for item in _items(name, text)
    ]
    if len(items) > MAX_ENTITIES:
        raise Invalid(f"the set has {len(items)} entities", hint=f"use at most {MAX_ENTITIES} entities")
    try:
        return parse_entities(items, max_ancestors=MAX_ANCESTORS), _encode(items).decode() if items else ""
    except Refused as error:
        raise type(error)(f"the entities: {error.message}", hint=error.hint) from None


def check_entities(text: str, schema: cedarpy.Schema) -> None:
    """Check that entities match the schema; `text` is the result of `read_entities`. Raises Invalid for an entity that
    does not match.
    """
    if not text or _fits(text, schema):
        return
    for item in msgspec.json.decode(text):
        if not _fits(_encode([item]).decode(), schema):
            uid = Uid(item["uid"]["type"], item["uid"]["id"])
            raise Invalid(
                f"the entity {str(uid)[:200]} does not fit the schema",
                hint="compare its attributes and parents with the declaration of its type",
            )
    raise Invalid(
        "each entity fits the schema, but all together do not", hint="check the parents of entities in several files"
    )


def by_type(entities: Mapping[Uid, Entity]) -> dict[str, tuple[str, ...]]:
    """Return the ids of the entities by type, sorted, as a search examines them."""
    by_kind: dict[str, list[str]] = defaultdict(list)
    for uid in entities:
        by_kind[uid.type].append(uid.id)
    return {kind: tuple(sorted(ids)) for kind, ids in by_kind.items()}


def _items(name: str, text: str) -> list[Json]:
    try:
        items = canonical.parse(text, max_bytes=MAX_FILE_BYTES, max_depth=MAX_DEPTH)
    except Malformed as error:
        raise Malformed(f"{name}: {error.message}") from None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Malformed(f"{name}: entities must be a list of objects")
    return items


def _completed(name: str, item: Json, vocabulary: Vocabulary) -> Json:
    """Return the entity with its attribute `id`. Raises Malformed for members of a wrong type, and Invalid for an
    entity that a set cannot state.
    """
    uid = _uid(name, item.get("uid"))
    parents = item.get("parents", [])
    if not isinstance(parents, list):
        raise Malformed(f"{name}: `parents` must be a list")
    for one in (uid, *(_uid(name, parent) for parent in parents)):
        if one.type in BASE_TYPES:
            raise Invalid(
                f"{name}: a file cannot state {str(one)[:200]}, because the server states entities of this type",
                hint="remove the entity from the file",
            )
        if one.type not in vocabulary.types:
            raise Invalid(f"{name}: {unknown_type_message(one.type, vocabulary.types.keys() - BASE_TYPES)}")
    attrs = item.get("attrs", {})
    if not isinstance(attrs, dict):
        raise Malformed(f"{name}: `attrs` must be an object")
    if attrs.get("id", uid.id) != uid.id:
        raise Invalid(
            f"{name}: the attribute `id` of {str(uid)[:200]} differs from its id", hint="leave the attribute `id` out"
        )
    if vocabulary.types[uid.type]:
        attrs = attrs | {"id": uid.id}
    return {**item, "attrs": attrs, "parents": parents}


def _uid(name: str, value: Any) -> Uid:
    if isinstance(value, dict) and value.keys() == {"__entity"}:
        value = value["__entity"]
    try:
        return Uid(**convert(value, dict[str, str]))
    except (msgspec.ValidationError, TypeError):
        raise Malformed(
            f"{name}: the uid or a parent of an entity is not an object with exactly `type` and `id`"
        ) from None


def _fits(text: str, schema: cedarpy.Schema) -> bool:
    try:
        cedarpy.Entities.from_json_str(text, schema=schema)
    except ValueError:
        return False
    return True
