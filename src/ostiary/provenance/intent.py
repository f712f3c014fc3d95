"""The intent of a task, fixed at its start: the words of the person, their own record, and documents that they named.

An intent states where values may come from. Bounds and policies state the allowed access. The values of an *endorsed*
document count as the person's for the kinds that it is endorsed for; its instructions never do.

The *plan* lists the effects that the words suggest (`ostiary.catalogue_advisor.draft`). The plan is made once from the
words, when the task starts; decisions read the plan and never the words. An effect outside the plan is not denied:
policies require approval for it, unless each identifying value comes from the person or an endorsed document.

    {"words": "Pay the bill in bill.txt, up to 50 euros", "own": {"mail": "ada@example.org"},
     "endorsed": [{"tool": "files/read_file", "value": "bill.txt", "kinds": ["account", "amount"]}],
     "plan": [{"tool": "bank/pay", "most": "50"}]}
"""

from __future__ import annotations

import unicodedata
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from ostiary.authorization.budget.limits import ToolId
from ostiary.authorization.catalogue import Kind
from ostiary.protocol import canonical
from ostiary.protocol.decoding import convert, json_decoder
from ostiary.protocol.errors import Forbidden, Invalid

MAX_WORDS = 16 << 10
"""maximum size of the words, in bytes of UTF-8"""
MAX_OWN = 16
MAX_ENDORSED = 8
MAX_PLANNED = 256
"""maximum number of tools in one plan"""
MAX_VALUE = 512
"""maximum length of a value that identifies a document or is in the person's own record, in characters"""

Value = Annotated[str, Meta(min_length=1, max_length=MAX_VALUE)]
FieldName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}\Z")]
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories of invisible characters, which the words must not contain"""
_WRITTEN = "\n\t\u200c\u200d\u200e\u200f"
"""invisible characters that written languages need, and that are allowed: line ends, tabs, joiners, and
direction marks (not overrides)
"""


class InvalidIntent(Invalid):
    """The value is not a valid intent: it is malformed, too large, or has an invisible character."""

    code = "invalid_intent"


class SaidBy(StrEnum):
    """The source of the words: a person, proved by a token; an administrator; or an agent that speaks for the
    person.
    """

    PERSON = "person"
    ADMINISTRATOR = "administrator"
    AGENT = "agent"


class Endorsed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An endorsed document: the output of `tool` (such as `files/read_file`) for the object that `value` names. Other
    arguments that identify the document, such as its drive, must come from the person too.
    """

    tool: ToolId
    value: Value
    kinds: Annotated[tuple[Kind, ...], Meta(min_length=1, max_length=len(Kind))]
    """kinds of arguments for which values in the document count as the person's"""


class Planned(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """An effect of a plan, which the words of the person suggest: a tool, and a maximum for the amounts
    of its calls.
    """

    tool: ToolId
    most: Annotated[str, Meta(pattern=r"^([0-9]{1,12}(\.[0-9]{1,4})?)?\Z")] = ""
    """the highest amount that the words state, in decimal digits; empty: no maximum"""

    def is_within(self, outer: Planned) -> bool:
        """Return whether `outer` names the same tool, and its maximum is not lower than this maximum."""
        return self.tool == outer.tool and self.within(outer) == self

    def within(self, outer: Planned) -> Planned:
        """Return this effect with the lower one of its own maximum and the maximum of `outer`."""
        caps = [one.most for one in (self, outer) if one.most]
        return Planned(self.tool, min(caps, key=Decimal, default=""))


class Intent(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    words: Annotated[str, Meta(min_length=1)]
    own: Annotated[dict[FieldName, Value], Meta(max_length=MAX_OWN)] = {}
    """the person's own record: `name`, `mail`, `account`, ..."""
    endorsed: Annotated[tuple[Endorsed, ...], Meta(max_length=MAX_ENDORSED)] = ()
    plan: Annotated[tuple[Planned, ...], Meta(max_length=MAX_PLANNED)] | None = None
    """the effects that the words suggest; None: no plan was made, and every effect counts as planned"""

    def __post_init__(self) -> None:
        """Check the limits that the types do not express. Raises InvalidIntent for an intent beyond a limit."""
        try:
            size = len(self.words.encode())
        except UnicodeEncodeError:
            raise InvalidIntent("the words have a lone surrogate in them") from None
        if size > MAX_WORDS:
            raise InvalidIntent(f"the words have {size} bytes", hint=f"shorten the words to at most {MAX_WORDS} bytes")
        if not self.words.strip():
            raise InvalidIntent("the words of the intent are empty")
        _check_seen(self.words, of="words")
        for name, value in self.own.items():
            _check_seen(value, of=f"value of `{name}`")
        for document in self.endorsed:
            _check_seen(document.value, of=f"value for `{document.tool}`")
        if len({(document.tool, document.value) for document in self.endorsed}) < len(self.endorsed):
            raise InvalidIntent(
                "a document is endorsed twice",
                hint="endorse each document once, with all kinds of arguments in its `kinds`",
            )
        if self.plan is not None and len({planned.tool for planned in self.plan}) < len(self.plan):
            raise InvalidIntent("the plan names a tool twice", hint="name each tool once")

    def check_within(self, outer: Intent | None) -> None:
        """Check that this intent narrows `outer`, the intent of the parent task. Raises Forbidden otherwise.

        The words must be consecutive whole words of the outer words: `pay 100` is no part of `pay 1000`.
        """
        if outer is None:
            raise Forbidden("the parent task has no words", hint="leave out `words`", code="widens")
        if not _is_run(self.words.split(), outer.words.split()):
            raise Forbidden(
                "the words are not a part of the words of the parent task",
                hint="quote consecutive words",
                code="widens",
            )
        if not self.own.items() <= outer.own.items():
            raise Forbidden(
                "the parent task does not have all values of `own`",
                hint="leave out the values that the parent task lacks",
                code="widens",
            )
        above = {(one.tool, one.value): set(one.kinds) for one in outer.endorsed}
        for document in self.endorsed:
            if not above.get((document.tool, document.value), set()) >= set(document.kinds):
                raise Forbidden(
                    f"the parent task does not endorse this document of `{document.tool}` for these kinds",
                    hint="leave out the document or the kinds, or endorse them when the parent task is started",
                    code="widens",
                )
        if outer.plan is None:
            return
        if self.plan is None:
            raise Forbidden("the parent task has a plan, and this intent has none", hint="add `plan`", code="widens")
        allowed = {one.tool: one for one in outer.plan}
        for planned in self.plan:
            if planned.tool not in allowed:
                raise Forbidden(
                    f"the plan of the parent task does not have `{planned.tool}`",
                    hint="leave the tool out of `plan`",
                    code="widens",
                )
            if not planned.is_within(allowed[planned.tool]):
                raise Forbidden(
                    f"the maximum of `{planned.tool}` is higher than in the plan of the parent task",
                    hint=f"set `most` to at most {allowed[planned.tool].most}",
                    code="widens",
                )


class Recorded(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """An intent as stored with its task: with its source, and with a salt that prevents guessing the intent
    from its digest.
    """

    intent: Intent
    said_by: SaidBy
    stated_by: str = msgspec.field(name="who")
    """id of the caller that stated the intent; empty: the server stated it"""
    salt: str

    @classmethod
    def decode(cls, text: str) -> Recorded:
        """Return the intent from its stored JSON text."""
        return json_decoder(cls)(text)

    @property
    def source(self) -> tuple[SaidBy, str]:
        """Return (type of the source of the intent, id of the caller that stated the intent)."""
        return self.said_by, self.stated_by

    def encode(self) -> bytes:
        """Return the intent as canonical JSON, the input of `digest`."""
        return canonical.encode(msgspec.to_builtins(self))

    @property
    def digest(self) -> str:
        """Return base64url(SHA-256) of `encode()`; the ledger records this digest."""
        return canonical.digest(msgspec.to_builtins(self))


def parse_intent(unverified: object) -> Intent:
    """Return the intent from a parsed JSON value. Raises InvalidIntent for any other value."""
    try:
        return convert(unverified, Intent)
    except msgspec.ValidationError as error:
        raise InvalidIntent(f"the intent: {str(error)[:200]}") from None


def _check_seen(text: str, *, of: str) -> None:
    for character in text:
        if unicodedata.category(character) in _UNSEEN and character not in _WRITTEN:
            name = unicodedata.name(character, "unnamed").lower()
            problem = f"the invisible character U+{ord(character):04X} ({name}) in the {of}"
            raise InvalidIntent(problem, hint="remove invisible characters")


def _is_run(inner: list[str], outer: list[str]) -> bool:
    return any(outer[at : at + len(inner)] == inner for at in range(len(outer) - len(inner) + 1))
