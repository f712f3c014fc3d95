"""A tool of a catalogue: its effect, the kinds of its arguments, and whether its results are untrusted."""

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
    """The effect of a call on the world."""

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
    """A tool. The default of `scope` is `read` for the effect `read`, `administer` for `administer`, and `write` for
    all others.
    """

    name: ToolName
    effect: Effect
    scope: Word | msgspec.UnsetType = msgspec.UNSET
    """the class: `write` in the scope `files:write`"""
    data_classes: Words | msgspec.UnsetType = msgspec.UNSET
    """the data classes that it handles (`ostiary.authorization.classes`) beyond those of the resource; absent: not
    stated
    """
    open_world: bool = True
    """true if it reaches beyond the resource: third parties may read its arguments, or have written its results"""
    outside: bool | msgspec.UnsetType = msgspec.UNSET
    """true if it returns content that third parties may have written; `is_outside` gives the default"""
    canary: bool | msgspec.UnsetType = msgspec.UNSET
    """true for a decoy, intended for no agent: a call of it is a finding"""
    confirmed: bool | msgspec.UnsetType = msgspec.UNSET
    """true if the owner has confirmed these statements about the tool; valid for this `definition` only"""
    arguments: dict[str, Any] = {}
    """JSON Schema of its input; empty: any object"""
    kinds: Annotated[dict[str, Word], Meta(max_length=64)] = {}
    """words for the kinds of arguments (`argument_kinds`), by name or dotted path; other words (`none`) mean no kind"""
    creates: Annotated[dict[ArgumentName, Place], Meta(max_length=8)] = {}
    """the names of things that a call creates: by the argument that takes such a name, the place where it is found.
    `output.id` is a member of the result, `arguments.path` an argument of the call (for a tool that replaces nothing)
    """
    presentation: Annotated[tuple[ArgumentName, ...], Meta(max_length=32)] = ()
    """arguments that only say how something is shown: an approval holds whatever they are"""
    offers: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=MAX_OFFER)], ...], Meta(max_length=MAX_OFFERS)
    ] = ()
    """values listed by the server that a call may name: URIs, URI templates (RFC 6570), names (see `offers`)"""
    description: Annotated[str, Meta(max_length=MAX_DESCRIPTION)] = ""
    """the server's own words, or the beginning of them"""
    definition: Annotated[str, Meta(pattern=r"^([A-Za-z0-9_-]{43})?\Z")] = ""
    """digest of the server's listing of the tool when its owner approved it; empty: any listing is accepted"""

    @property
    def scope_class(self) -> str:
        """The class of the scope that the tool requires."""
        return _CLASSES.get(self.effect, "write") if self.scope is msgspec.UNSET else self.scope

    @property
    def is_proposed(self) -> bool:
        """Return whether the server lists the tool, and no owner has confirmed its entry in the catalogue."""
        return self.definition != "" and not self.confirmed

    @property
    def is_outside(self) -> bool:
        """Return whether third parties may have written its results.

        Only `outside: false` denies that, or a closed world for a tool that its owner wrote by hand: a hint of the
        server makes no content trusted.
        """
        return (self.open_world or self.definition != "") if self.outside is msgspec.UNSET else self.outside

    @cached_property
    def argument_kinds(self) -> Mapping[str, Kind]:
        """Return the kinds of arguments by name or dotted path. A kind applies to each value inside the argument."""
        return MappingProxyType({path: KINDS[word] for path, word in self.kinds.items() if word in KINDS})

    @cached_property
    def coverage(self) -> Coverage:
        """The rules that claim each leaf of its arguments."""
        return Coverage(self.kinds, self.argument_kinds, self.arguments, self.presentation, self.offers)

    @cached_property
    def typed(self) -> Arguments:
        """Return the prepared schema of its arguments. Raises Invalid."""
        return Arguments(self.arguments | {"type": "object"})


def check_tool(tool: Tool) -> None:
    """Check the schema, the classes and the options of a tool. Raises Invalid, which names the tool."""
    try:
        _check_schema(tool)
        _check_presentation(tool)
    except (Malformed, Invalid) as error:
        raise Invalid(f"tool `{tool.name}`: {error.message}", hint=error.hint) from None


def _check_schema(tool: Tool) -> None:
    size = len(canonical.encode(tool.arguments, floats=True, max_depth=MAX_SCHEMA_DEPTH))
    if size > MAX_SCHEMA_BYTES:
        raise Invalid(f"the schema has {size} bytes", hint=f"at most {MAX_SCHEMA_BYTES}")
    if tool.arguments.get("type", "object") != "object":
        raise Invalid("the arguments of a tool are an object")
    tool.typed  # noqa: B018 because making it ready is what checks it


def _check_presentation(tool: Tool) -> None:
    """Refuse a presentation argument that contains an argument with a kind: approvals must show it. Raises Invalid."""
    for name in tool.presentation:
        inside = [path for path in tool.argument_kinds if f"{path}.".startswith(f"{name}.")]
        if inside:
            raise Invalid(
                f"`{name[:64]}` is presentation, and `{inside[0][:64]}` stands for {tool.argument_kinds[inside[0]]}",
                hint="approvals leave presentation arguments out, so they must not identify anything",
            )
