"""A tool of a catalogue: its effect, the kinds of its arguments, and whether its results are untrusted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from ostiary.authorization.arguments import Arguments
from ostiary.authorization.arguments.shape import properties_of, shape_of
from ostiary.authorization.catalogue.coverage import Coverage
from ostiary.authorization.catalogue.kind import KINDS, Kind
from ostiary.authorization.catalogue.offers import MAX_OFFER, MAX_OFFERS
from ostiary.protocol import canonical
from ostiary.protocol.errors import Invalid, Malformed

MAX_SCHEMA_BYTES = 64 << 10
MAX_CHOICES = 64
"""maximum number of listed texts of one argument that are examined"""
MAX_DESCRIPTION = 2048
"""maximum length of a description in characters"""
MAX_SCHEMA_DEPTH = canonical.MAX_DEPTH - 4
"""Maximum levels of a schema. The catalogue adds levels around it: three in its digest, four in a request."""


class Effect(StrEnum):
    """The kind of change that a call of the tool makes."""

    READ = "read"
    WRITE = "write"
    SEND = "send"
    DESTROY = "destroy"
    PAY = "pay"
    SHARE = "share"
    CHANGE = "change"
    ADMINISTER = "administer"


GRAVE = frozenset({Effect.PAY, Effect.DESTROY, Effect.ADMINISTER})
"""effects that cannot be undone; rules that avoid an approval request do not apply to them"""
SENDING = frozenset({Effect.SEND, Effect.SHARE, Effect.PAY})
"""effects that send data to a recipient even in a closed world"""
_CLASSES = {Effect.READ: "read", Effect.ADMINISTER: "administer"}
_POWER = ("read", "write", "administer")
"""classes of scopes that follow from effects, in ascending order"""

TOOL_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,127}\Z")
ToolName = Annotated[str, Meta(pattern=TOOL_NAME.pattern)]
Word = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}\Z")]
Words = Annotated[tuple[Word, ...], Meta(max_length=32)]
ArgumentName = Annotated[str, Meta(min_length=1, max_length=256)]
Place = Annotated[str, Meta(pattern=r"^(output|arguments)(\.[A-Za-z0-9_-]{1,64}){1,8}\Z")]


class Choice(NamedTuple):
    """The texts that a schema lists for an argument, and the value of a call that leaves out the argument."""

    texts: tuple[str, ...]
    default: object


class Tool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, dict=True):
    """A tool in a catalogue. The default of `scope` is `read` for the effect `read`, `administer` for
    `administer`, and `write` for all others.
    """

    name: ToolName
    effect: Effect
    scope: Word | msgspec.UnsetType = msgspec.UNSET
    """class of the required scope: `write` for the scope `files:write`"""
    data_classes: Words | msgspec.UnsetType = msgspec.UNSET
    """data classes that the tool handles (`ostiary.authorization.classes`) in addition to those of the
    resource; absent: not stated
    """
    open_world: bool = True
    """true if the tool reaches beyond the resource: third parties may read its arguments, or may have written
    its results
    """
    outside: bool | msgspec.UnsetType = msgspec.UNSET
    """true if the tool returns content that third parties may have written; absent: see `is_outside`"""
    canary: bool | msgspec.UnsetType = msgspec.UNSET
    """true for a decoy, which no agent should call: a call raises a finding"""
    confirmed: bool | msgspec.UnsetType = msgspec.UNSET
    """true if the owner has confirmed this entry of the catalogue; valid only for this `definition`"""
    arguments: dict[str, Any] = {}
    """JSON Schema of the tool's arguments; empty: any object"""
    kinds: Annotated[dict[str, Word], Meta(max_length=64)] = {}
    """words for the kinds of arguments (`argument_kinds`), by name or dotted path; other words (`none`) mean no kind"""
    creates: Annotated[dict[ArgumentName, Place], Meta(max_length=8)] = {}
    """places of the names of things that a call creates, by the argument with which later calls name such a
    thing. `output.id` is a member of the result, `arguments.path` an argument of the call (for a tool that
    never overwrites)
    """
    presentation: Annotated[tuple[ArgumentName, ...], Meta(max_length=32)] = ()
    """arguments that determine only the form of the output: an approval holds for all their values"""
    offers: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=MAX_OFFER)], ...], Meta(max_length=MAX_OFFERS)
    ] = ()
    """values that the server lists and a call may name: URIs, URI templates (RFC 6570), names (see `offers`)"""
    description: Annotated[str, Meta(max_length=MAX_DESCRIPTION)] = ""
    """the server's description of the tool, cut to MAX_DESCRIPTION characters"""
    definition: Annotated[str, Meta(pattern=r"^([A-Za-z0-9_-]{43})?\Z")] = ""
    """digest of the server's listing of the tool when its owner approved it; empty: any listing is accepted"""

    @property
    def scope_class(self) -> str:
        """Return the class of the scope that a call of the tool requires, such as `read` for the scope `files:read`."""
        return _class_of(self.effect) if self.scope is msgspec.UNSET else self.scope

    def scope_for(self, effect: Effect) -> str | msgspec.UnsetType:
        """Return the stated `scope` that stays if the tool gets the effect `effect`; UNSET if none is stated, or if
        `effect` requires a more powerful class than the present effect.
        """
        is_more = _POWER.index(_class_of(effect)) > _POWER.index(_class_of(self.effect))
        return msgspec.UNSET if is_more else self.scope

    @property
    def is_proposed(self) -> bool:
        """Return whether the server lists the tool, and no owner has confirmed its entry in the catalogue."""
        return self.definition != "" and not self.confirmed

    @property
    def is_outside(self) -> bool:
        """Return whether third parties may have written the tool's results.

        The owner states it. Without a statement, the result is False only if the owner wrote the entry by hand and
        marked the tool as closed-world: a hint of the server never makes content trusted.
        """
        return (self.open_world or self.definition != "") if self.outside is msgspec.UNSET else self.outside

    @cached_property
    def argument_kinds(self) -> Mapping[str, Kind]:
        """Return the kind of each argument for which the catalogue states one, by name or dotted path. A kind applies
        to each value inside the argument, except where a longer path states another kind or `none`.
        """
        return MappingProxyType({path: KINDS[word] for path, word in self.kinds.items() if word in KINDS})

    @cached_property
    def coverage(self) -> Coverage:
        """Return the rules that decide by which kind each leaf (single value) of the tool's arguments is judged."""
        return Coverage(self.kinds, self.argument_kinds, self.arguments, self.presentation, self.offers)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Return the place of each argument in the order in which the schema lists them, by name."""
        return MappingProxyType({name: place for place, name in enumerate(properties_of(self.arguments))})

    @cached_property
    def choices(self) -> Mapping[str, Choice]:
        """Return the texts that the schema lists for each argument about which the catalogue states nothing, by name,
        if there are two or more.
        """
        shape = shape_of([self.arguments], self.arguments)
        by_name: dict[str, Choice] = {}
        for name in shape.names:
            inner = None if name in self.kinds or name in self.presentation else shape.member(name)
            texts = () if inner is None else tuple(one for one in inner.choices if isinstance(one, str))
            if len(texts) > 1:
                stated = properties_of(self.arguments).get(name)
                by_name[name] = Choice(texts[:MAX_CHOICES], stated.get("default") if isinstance(stated, dict) else None)
        return MappingProxyType(by_name)

    @cached_property
    def typed(self) -> Arguments:
        """Return the compiled schema of the tool's arguments. Raises Invalid for a schema that is not supported."""
        return Arguments(self.arguments | {"type": "object"})


def _class_of(effect: Effect) -> str:
    """Return the class of the scope that follows from an effect."""
    return _CLASSES.get(effect, "write")


def check_tool(tool: Tool) -> None:
    """Check the schema and the presentation arguments of a tool. Raises Invalid, which names the tool."""
    try:
        _check_schema(tool)
        _check_presentation(tool)
    except (Malformed, Invalid) as error:
        raise Invalid(f"tool `{tool.name}`: {error.message}", hint=error.hint) from None


def _check_schema(tool: Tool) -> None:
    size = len(canonical.encode(tool.arguments, floats=True, max_depth=MAX_SCHEMA_DEPTH))
    if size > MAX_SCHEMA_BYTES:
        raise Invalid(f"the schema has {size} bytes", hint=f"use at most {MAX_SCHEMA_BYTES} bytes")
    if tool.arguments.get("type", "object") != "object":
        raise Invalid('the schema of the arguments must have the type "object"')
    tool.typed  # noqa: B018 because making it ready is what checks it


def _check_presentation(tool: Tool) -> None:
    """Check that no presentation argument contains an argument with a kind, because approvals must show the latter.
    Raises Invalid otherwise.
    """
    for name in tool.presentation:
        inside = [path for path in tool.argument_kinds if f"{path}.".startswith(f"{name}.")]
        if inside:
            raise Invalid(
                f"`{name[:64]}` is in `presentation`, and `{inside[0][:64]}` has the kind"
                f" `{tool.argument_kinds[inside[0]]}`",
                hint=f"remove `{name[:64]}` from `presentation`, because approvals do not show presentation arguments",
            )
