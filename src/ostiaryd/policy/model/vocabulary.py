"""The vocabulary of a policy set: the types and actions of its schema, read from the text that cedarpy prints.

cedarpy provides no syntax tree of a schema, but the text that it prints is regular. Each declaration begins on a new
line, indented by two spaces within a namespace. Strings are escaped, so that no string contains a line break.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ostiary.decision.access.policy_kinds import RESPONSES

_NAMESPACE = re.compile(r"namespace (\S+) \{")
_ENTITY = re.compile(r"( *)entity (\w+)")
_ACTION = re.compile(r' *action "((?:\\.|[^"\\])*)"')
_APPLIES = re.compile(r" *(principal|resource): \[(.*)\],?")
_ESCAPE = re.compile(r"\\(u\{[0-9a-fA-F]+\}|.)")
_PLAIN = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}


@dataclass(slots=True)
class Action:
    """An action that a schema declares, with the types of the principals and of the resources to which it applies."""

    principals: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()


@dataclass(slots=True)
class Vocabulary:
    """The names that a Cedar schema declares. `types`: the entity types, each with true if the type has a string
    attribute `id`; `actions`: the actions by name, without those in a namespace.
    """

    types: dict[str, bool] = field(default_factory=dict)
    actions: dict[str, Action] = field(default_factory=dict)

    def actions_of(self, principal: str, resource: str) -> list[str]:
        """Return the names, sorted, of the actions that apply to a principal and a resource of these types. The actions
        that stand for responses of playbooks are left out.
        """
        return sorted(
            name
            for name, action in self.actions.items()
            if principal in action.principals and resource in action.resources and name not in RESPONSES
        )


def read_vocabulary(printed_schema: str) -> Vocabulary:
    """Return the vocabulary of a schema, from the text that cedarpy prints for the schema."""
    vocabulary = Vocabulary()
    namespace, type_, action = "", "", Action()
    has_id = ""
    for line in printed_schema.splitlines():
        if (match := _NAMESPACE.fullmatch(line)) is not None:
            namespace = match[1] + "::"
        elif line == "}":
            namespace = ""
        elif (match := _ENTITY.match(line)) is not None:
            type_, has_id = namespace + match[2], match[1] + "  id"
            vocabulary.types[type_] = False
        elif (match := _ACTION.match(line)) is not None:
            action = Action()
            if not namespace:
                vocabulary.actions[_unescape(match[1])] = action
        elif line.removesuffix(",") in (has_id + ": String", has_id + "?: String"):
            vocabulary.types[type_] = True
        elif (match := _APPLIES.fullmatch(line)) is not None:
            types = frozenset(match[2].split(", ")) - {""}
            if match[1] == "principal":
                action.principals = types
            else:
                action.resources = types
    return vocabulary


def unknown_type_message(kind: str, names: Iterable[str]) -> str:
    """Return the error message for an entity type `kind` that the schema does not declare; `names`: the types that it
    declares.
    """
    return f"there is no type {kind[:100]!a}; there are {', '.join(sorted(names))}"[:400]


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: _plain(match[1]), text)


def _plain(escape: str) -> str:
    return chr(int(escape[2:-1], 16)) if escape.startswith("u{") else _PLAIN.get(escape, escape)
