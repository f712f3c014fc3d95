"""One tool of a catalogue: what it does, what its arguments stand for, whether others may have written its answers."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ostiary.authorization.arguments import Arguments
from ostiary.authorization.catalogue.coverage import Coverage
from ostiary.authorization.catalogue.kind import KINDS, Kind
from ostiary.authorization.catalogue.offers import MAX_OFFER, MAX_OFFERS
from ostiary.protocol import canonical
from ostiary.protocol.errors import Invalid, Malformed

MAX_SCHEMA_BYTES = 64 << 10
MAX_DESCRIPTION = 2048
"""characters"""
MAX_SCHEMA_DEPTH = canonical.MAX_DEPTH - 4  # so that the catalogue around it has a digest


class Effect(StrEnum):
    """What a call does to the world."""

    READ = "read"
    WRITE = "write"
    SEND = "send"
    DESTROY = "destroy"
    PAY = "pay"
    SHARE = "share"
    CHANGE = "change"
    ADMINISTER = "administer"


_CLASSES = {Effect.READ: "read", Effect.ADMINISTER: "administer"}

ToolName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,127}\Z")]
Word = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}\Z")]
Words = Annotated[tuple[Word, ...], Meta(max_length=32)]
ArgumentName = Annotated[str, Meta(min_length=1, max_length=256)]
Place = Annotated[str, Meta(pattern=r"^(output|arguments)(\.[A-Za-z0-9_-]{1,64}){1,8}\Z")]


class Tool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, dict=True):
    """One tool. Left out, `scope` is `read` for what reads, `administer` for what administers, `write` for the rest."""

    name: ToolName
    effect: Effect
    scope: Word | msgspec.UnsetType = msgspec.UNSET
    """the class: `write` in the scope `files:write`"""
    data_classes: Words | msgspec.UnsetType = msgspec.UNSET
    """what it handles (`ostiary.authorization.classes`) beyond what the resource does; left out: nothing is said of
    it
    """
    open_world: bool = True
    """whether it reaches beyond the resource: anybody may read what it sends, or have written what it reads"""
    outside: bool | msgspec.UnsetType = msgspec.UNSET
    """whether it returns content that somebody outside may have written; see `is_outside` for one that does not say"""
    canary: bool | msgspec.UnsetType = msgspec.UNSET
    """whether it is a decoy: there for nobody, so that whoever calls it is noticed"""
    confirmed: bool | msgspec.UnsetType = msgspec.UNSET
    """whether the owner has confirmed what the catalogue says of this tool; it holds for this `definition` only"""
    arguments: dict[str, Any] = {}
    """JSON Schema of its input; empty: any object"""
    kinds: Annotated[dict[str, Word], Meta(max_length=64)] = {}
    """what arguments stand for, by name or dotted path, `argument_kinds` in short; other words (`none`) say nothing"""
    creates: Annotated[dict[ArgumentName, Place], Meta(max_length=8)] = {}
    """what names a thing that a call creates: by the argument that takes such a name, where it is found. `output.id` is
    a member of what the tool returns, `arguments.path` what it was called with (for a tool that replaces nothing)
    """
    presentation: Annotated[tuple[ArgumentName, ...], Meta(max_length=32)] = ()
    """arguments that only say how something is shown: an approval holds whatever they are"""
    offers: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=MAX_OFFER)], ...], Meta(max_length=MAX_OFFERS)
    ] = ()
    """what the server lists that a call may name: URIs, URI templates (RFC 6570), names (see `offers`)"""
    description: Annotated[str, Meta(max_length=MAX_DESCRIPTION)] = ""
    """the server's own words, or the beginning of them"""
    definition: Annotated[str, Meta(pattern=r"^([A-Za-z0-9_-]{43})?\Z")] = ""
    """digest of all that the server said of it when its owner approved it; empty: it may say anything"""

    @property
    def scope_class(self) -> str:
        return _CLASSES.get(self.effect, "write") if self.scope is msgspec.UNSET else self.scope

    @property
    def is_proposed(self) -> bool:
        """Return whether a server lists it and no owner has confirmed what the catalogue says of it."""
        return self.definition != "" and not self.confirmed

    @property
    def is_outside(self) -> bool:
        """Return whether somebody outside may have written what it returns.

        Only `outside: false` says that nobody has, or, of a tool that its owner wrote by hand, a closed world: a
        server's own hint makes no content trusted.
        """
        return (self.open_world or self.definition != "") if self.outside is msgspec.UNSET else self.outside

    @cached_property
    def argument_kinds(self) -> Mapping[str, Kind]:
        """What arguments stand for, by name or dotted path. It counts for each value inside of what is there."""
        return MappingProxyType({path: KINDS[word] for path, word in self.kinds.items() if word in KINDS})

    @cached_property
    def coverage(self) -> Coverage:
        """The rules that claim each leaf of its arguments."""
        return Coverage(self.kinds, self.argument_kinds, self.arguments, self.presentation, self.offers)

    @cached_property
    def typed(self) -> Arguments:
        """Its arguments' schema, made ready. Raises Invalid."""
        return Arguments(self.arguments | {"type": "object"})


def check_tool(tool: Tool) -> None:
    """Raises Invalid, by the name of the tool."""
    try:
        _check_schema(tool)
        _check_presentation(tool)
    except (Malformed, Invalid) as error:
        raise Invalid(f"tool `{tool.name}`: {error.message}", hint=error.hint) from None


def _check_schema(tool: Tool) -> None:
    size = len(canonical.encode(tool.arguments, floats=True, max_depth=MAX_SCHEMA_DEPTH))
    if size > MAX_SCHEMA_BYTES:
        raise Invalid(f"its schema has {size} bytes", hint=f"at most {MAX_SCHEMA_BYTES}")
    if tool.arguments.get("type", "object") != "object":
        raise Invalid("the arguments of a tool are an object")
    tool.typed  # noqa: B018 because making it ready is what checks it


def _check_presentation(tool: Tool) -> None:
    """What stands for something is never left out of what is approved."""
    for name in tool.presentation:
        inside = [path for path in tool.argument_kinds if f"{path}.".startswith(f"{name}.")]
        if inside:
            raise Invalid(
                f"`{name[:64]}` is presentation, and `{inside[0][:64]}` stands for {tool.argument_kinds[inside[0]]}",
                hint="what an approval leaves out must not matter",
            )
