"""Changes of tool definitions since their approval by the owner, and the catalogue that accepts the changes.

The owner's settings stay: scope (unless the new effect requires a more powerful one), data classes, kinds, whether
content is untrusted. The acceptance of a change can make a tool more dangerous, never less; to make a tool less
dangerous, its owner edits the catalogue.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from msgspec import UNSET
from msgspec.structs import replace

from ostiary.authorization.catalogue import Catalogue, Tool
from ostiary.catalogue_advisor.reading import RANK
from ostiary.protocol.errors import Invalid


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the member `member` of a tool. `was` and `now`: the value at the approval and the present value, as
    shortened texts.
    """

    tool: str
    verdict: Literal["new", "gone", "changed"]
    member: str
    was: str
    now: str


def diff(approved: Catalogue, listed: Catalogue) -> list[Change]:
    """Return the changes of the tools since the owner approved `approved`; `listed` is the proposal from the tools that
    the server lists now.
    """
    return [change for name in sorted({*approved.tools, *listed.tools}) for change in _changes(name, approved, listed)]


def accept(approved: Catalogue, listed: Catalogue, tools: Collection[str] = ()) -> Catalogue:
    """Return the approved catalogue with the present definitions of `tools`; without any, of all new and changed
    tools. Raises Invalid for a tool that is neither new nor changed.
    """
    open_ = {change.tool for change in diff(approved, listed) if change.verdict != "gone"}
    if unknown := sorted({*tools} - open_):
        raise Invalid(f"the tool `{unknown[0][:128]}` is neither new nor changed", hint="leave this tool out")
    accepted = {name: _accepted(approved.tools.get(name), listed.tools[name]) for name in tools or sorted(open_)}
    merged = {**approved.tools, **accepted}
    return Catalogue.of(approved.resource, list(merged.values()), approved.data_classes)


def _changes(name: str, approved: Catalogue, listed: Catalogue) -> Iterator[Change]:
    was, now = approved.tools.get(name), listed.tools.get(name)
    if was is None:
        assert now is not None
        yield Change(name, "new", "effect", "", now.effect)
    elif now is None:
        if was.definition:  # the server need not list a tool that the owner wrote by hand
            yield Change(name, "gone", "effect", was.effect, "")
    elif was.definition != now.definition:
        compared = [
            ("description", was.description, now.description),
            ("arguments", _names(was), _names(now)),
            ("effect", was.effect.value, _worse(was, now).effect.value),
            ("open_world", str(was.open_world), str(was.open_world or now.open_world)),
        ]
        changes = [Change(name, "changed", member, old, new) for member, old, new in compared if old != new]
        yield from changes or [Change(name, "changed", "definition", was.definition, now.definition)]


def _names(tool: Tool) -> str:
    properties = tool.arguments.get("properties")
    return " ".join(sorted(properties)) if isinstance(properties, dict) else ""


def _worse(was: Tool, now: Tool) -> Tool:
    return now if RANK[now.effect] > RANK[was.effect] else was


def _accepted(was: Tool | None, now: Tool) -> Tool:
    if was is None:
        return now
    kinds = dict(list({**now.kinds, **was.kinds}.items())[:64])
    effect = _worse(was, now).effect
    return replace(
        was,
        effect=effect,
        scope=was.scope_for(effect),
        open_world=was.open_world or now.open_world,
        arguments=now.arguments,
        kinds=kinds,
        description=now.description,
        definition=now.definition,
        confirmed=UNSET,
    )
