"""A default reading of what an MCP server says of its tools: effect, open world, outside content, kinds of arguments.

It proposes, a line with a reason for each thing, and the owner of the resource confirms. All of it is the server's own
word, and hostile until then. So the sources stand in an order, and a later one only makes a tool look *more* dangerous:

    read < write, change < send, share < pay, destroy < administer

1. Hints that are there: `readOnlyHint: true` is `read`, `destructiveHint: false` is `write`, all else is `destroy`.
2. The name. Where no hint is, it is where we begin; one that says nothing destroys, as MCP has it.
3. The beginning of the description. It turns no tool into one that reads, and closes no world.
4. The arguments: a read that goes to an address in an open world is a send; an amount with where it goes is a payment.
   Of what does something, an argument of which nothing says that it is words that go out is what the call is about.

Only a hint closes the world of a tool. Of a read whose name talks of nothing but what a system keeps itself (a balance,
a setting) it is proposed that nobody outside has written what it returns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from ostiary.core.catalogue import METHODS, Catalogue, Effect, Kind, Tool
from ostiary.core.catalogue.listed import Listed, listing_of, parse_listed, seen
from ostiary.core.language import CONJUNCTIONS, GROUPS, NOUNS_TOO, VERBS, effects_of, noun, nouns, parts, verb, verbs_of

RANK = {
    Effect.READ: 0, Effect.WRITE: 1, Effect.CHANGE: 1, Effect.SEND: 2, Effect.SHARE: 2, Effect.PAY: 3,
    Effect.DESTROY: 3, Effect.ADMINISTER: 4,
}  # fmt: skip
_GRAVE = ((Effect.DESTROY,), (Effect.PAY,), (Effect.ADMINISTER,))
MAX_KINDS = 64
MAX_DEPTH = 4
MAX_NAME = 256
MAX_SENTENCE = 400
_SENTENCE_END = re.compile(r"[.!?:;\n]")
_PREAMBLE = frozenset(
    ["this", "tool", "function", "will", "can", "used", "to", "allows", "you", "the", "a", "it", "lets"]
)

_HEADS: dict[str, Kind] = {
    head: kind
    for kind, heads in {
        Kind.SECRET: "password passphrase passcode pin secret credential otp cvv cvc token apikey",
        Kind.ACCOUNT: "account iban bic swift card wallet payee beneficiary routing",
        Kind.ADDRESS: """address email mail recipient to cc bcc url uri link href webhook endpoint host hostname domain
            website site phone telephone mobile fax channel destination callback receiver""",
        Kind.AMOUNT: "amount price sum total cost budget fee quantity qty salary value tip",
        Kind.TIME: """date time datetime at day start end deadline due until when duration month year timestamp
            recurrence schedule expiry expiration""",
        Kind.PRINCIPAL: """user username member person participant attendee assignee owner customer employee guest
            collaborator friend invitee sender author group team role client""",
        Kind.OBJECT: """id identifier file filename path folder directory key sku slug number object resource source
            target name""",
        Kind.TEXT: """body content message text subject title description note comment summary caption html markdown
            reply answer reason memo command script code prompt instruction detail remark heading headline topic
            statement feedback review question transcript quote greeting bio""",
    }.items()
    for head in heads.split()
}
"""What the last word of an argument's name says that it stands for."""
_PAYEES = ("recipient", "receiver", "to", "destination")
_PERSONAL = ("first", "last", "full", "given", "family", "display", "nick", "user", "contact", "customer", "person")
_NUMBERED = ("number", "key")
_PLACES = (
    "url",
    "uri",
    "link",
    "href",
    "webhook",
    "endpoint",
    "host",
    "hostname",
    "domain",
    "website",
    "site",
    "callback",
)
"""Addresses that a read goes to; any other one in a read says whom it is about."""
_FORMATS = {
    "email": Kind.ADDRESS, "idn-email": Kind.ADDRESS, "uri": Kind.ADDRESS, "url": Kind.ADDRESS, "iri": Kind.ADDRESS,
    "hostname": Kind.ADDRESS, "date": Kind.TIME, "date-time": Kind.TIME, "time": Kind.TIME, "password": Kind.SECRET,
}  # fmt: skip
_RECORDS = frozenset(
    [
        "account", "balance", "clock", "contact", "count", "currency", "date", "day", "directory", "info", "limit",
        "member", "permission", "preference", "profile", "role", "setting", "status", "time", "user", "version",
    ]
)  # fmt: skip
"""What a system keeps itself, and nobody outside writes into."""
_SHAPES = str.maketrans("015", "ois")


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that is proposed: of which tool, which member, what, and why. Quotes nothing that a server said but
    names of tools and arguments, and the URIs and prompts that it lists.
    """

    tool: str
    member: str
    value: str
    why: str


@dataclass(frozen=True, slots=True)
class Reading:
    catalogue: Catalogue
    lines: tuple[Line, ...]


def read(resource: str, unverified_result: object) -> Reading:
    """Propose a catalogue by the results of MCP's list methods (all pages together). Raises Malformed, Invalid."""
    listing = listing_of(unverified_result)
    found = [_read(listed, definition) for listed, definition in parse_listed(listing)]
    catalogue = Catalogue.listed(resource, listing, [tool for tool, _ in found])
    methods = [line for name in METHODS if name in catalogue.tools for line in _of_method(catalogue.tools[name])]
    return Reading(catalogue, (*(line for _, lines in found for line in lines), *methods, *_alike(catalogue)))


def _of_method(tool: Tool) -> Iterator[Line]:
    yield Line(tool.name, "effect", tool.effect.value, "a method of MCP")
    yield from (Line(tool.name, f"kinds.{path}", kind, "a method of MCP") for path, kind in tool.kinds.items())
    yield from (Line(tool.name, "offers", seen(one), "the server lists it") for one in tool.offers)


def _read(listed: Listed, definition: str) -> tuple[Tool, list[Line]]:
    plain = listed.tool(definition)
    effect, why = _effect(listed)
    kinds = dict(islice(_kinds(listed.input_schema, is_read=effect is Effect.READ), MAX_KINDS))
    has = {kind for kind, _ in kinds.values()}
    if effect is Effect.READ and plain.open_world and Kind.ADDRESS in has:
        effect, why = Effect.SEND, "what it asks for goes to an address in an open world"
    elif 0 < RANK[effect] < RANK[Effect.PAY] and {Kind.AMOUNT, Kind.ACCOUNT} <= has:
        effect, why = Effect.PAY, "it takes an amount, and where that goes"
    if effect is Effect.PAY:
        kinds = {path: _payee(path, kind, of) for path, (kind, of) in kinds.items()}
    tool = replace(plain, effect=effect, kinds={path: kind.value for path, (kind, _) in kinds.items()})
    lines = [
        Line(tool.name, "effect", effect.value, why),
        Line(
            tool.name,
            "open_world",
            _yes(tool.open_world),
            "by its hints" if _says_world(listed) else "nothing closes it",
        ),
    ]
    if tool.open_world and not _says_world(listed) and effect is Effect.READ and _is_of_record(listed.name):
        tool = replace(tool, outside=False)
        lines.append(Line(tool.name, "outside", "no", "it returns what a system keeps itself"))
    return tool, lines + [Line(tool.name, f"kinds.{path}", kind.value, of) for path, (kind, of) in kinds.items()]


def _effect(listed: Listed) -> tuple[Effect, str]:
    """What it does, and why that is thought."""
    hints, name = listed.hints, parts(listed.name)
    named = _done_by_name(name)
    if hints.read_only_hint is UNSET and hints.destructive_hint is UNSET:
        effect, why = named or Effect.DESTROY, "its name" if named else "nothing is known of it: it may do anything"
    else:
        effect, why = listed.tool("").effect, "its hints"
        if named is not None and (RANK[named] > RANK[effect] or (RANK[named] == RANK[effect] and named is not effect)):
            effect, why = named, "its name says more than its hints"
    described = _done_by_sentence(listed.description or "")
    if described is not None and RANK[described] > RANK[effect]:
        effect, why = described, "its description says more than its name and hints"
    return effect, why


def _done_by_name(words: list[str]) -> Effect | None:
    """`send_mail`, `mail.send`, `read_and_delete`: the worst of its verbs; one that is grave counts wherever it is."""
    about = nouns(words)
    grave = [word for word in words if word not in NOUNS_TOO and VERBS.get(word, ())[:1] in _GRAVE]
    done = (effects_of(one, about - {one})[0] for one in (*verbs_of(words), *grave))
    return max(done, key=RANK.__getitem__, default=None)


def _done_by_sentence(text: str) -> Effect | None:
    """`Deletes a file.`, `This tool reads and deletes ..`: the worst of the verbs that it begins with."""
    words = parts(_SENTENCE_END.split(text[:MAX_SENTENCE].strip(), maxsplit=1)[0])
    while words and words[0] in _PREAMBLE:
        words = words[1:]
    about = nouns(words[1:6])
    led = [word for at, word in enumerate(words) if at == 0 or (at < 6 and words[at - 1] in CONJUNCTIONS)]
    return max(
        (effects_of(found, about)[0] for word in led if (found := verb(word))), key=RANK.__getitem__, default=None
    )


def _kinds(schema: Mapping[str, Any], *, is_read: bool, before: str = "", depth: int = MAX_DEPTH) -> Iterator[Any]:
    """(dotted path, (kind, why)) of arguments, those of objects and of lists of objects too."""
    properties = schema.get("properties")
    for name, inner in properties.items() if isinstance(properties, dict) else ():
        if not isinstance(inner, dict) or "." in name or len(name) > MAX_NAME:
            continue
        items = _element(inner)
        if isinstance(items, dict) and isinstance(items.get("properties"), dict) and depth > 1:
            yield from _kinds(items, is_read=is_read, before=f"{before}{name}.", depth=depth - 1)
        elif (found := _kind(name, items if isinstance(items, dict) else inner, is_read=is_read)) is not None:
            yield before + name, found


def _element(schema: Mapping[str, Any]) -> Any:
    """Of a list its elements', of what may be left out that of what it is when it is there; or else the schema."""
    for one in (schema, *_branches(schema)):
        if one.get("type") == "array":
            return one.get("items", {})
        if isinstance(one.get("properties"), dict):
            return one
    return schema


def _kind(name: str, schema: Mapping[str, Any], *, is_read: bool) -> tuple[Kind, str] | None:
    types = _types(schema)
    if "enum" in schema or "const" in schema or not types or types & {"boolean", "object"}:
        return None
    words = [noun(word) for word in parts(name)]
    head = words[-1] if words else ""
    if str(schema.get("format")) in _FORMATS:
        kind, why = _FORMATS[str(schema["format"])], "its format"
    elif head == "name" and words[:-1] and words[-2] in _PERSONAL:
        kind, why = Kind.PRINCIPAL, "it is somebody's name"
    elif head in _HEADS:
        kind, why = _HEADS[head], f"it is called `{head}`"
    elif head in GROUPS and "string" in types:
        kind, why = Kind.OBJECT, "it names a thing"
    elif "string" in types and not is_read:
        is_text = any(_HEADS.get(noun(word)) is Kind.TEXT for word in _described(schema))
        kind, why = (
            (Kind.TEXT, "words, by its description") if is_text else (Kind.OBJECT, "nothing says that it is words")
        )
    else:
        return None
    if "string" not in types and kind not in (Kind.AMOUNT, Kind.ACCOUNT, Kind.OBJECT, Kind.TIME):
        return None  # a number is no address
    if kind is Kind.OBJECT and head in _NUMBERED and not words[:-1] and "string" not in types:
        return None  # how many, not which
    if not is_read:
        return kind, why
    if kind is Kind.ADDRESS and head not in _PLACES and schema.get("format") not in ("uri", "url", "iri"):
        return Kind.PRINCIPAL, "whom it reads about"
    return None if kind in (Kind.TEXT, Kind.AMOUNT, Kind.TIME) else (kind, why)


def _described(schema: Mapping[str, Any]) -> list[str]:
    """The words of the first sentence of its description."""
    said = schema.get("description")
    return parts(_SENTENCE_END.split(said[:MAX_SENTENCE], maxsplit=1)[0]) if isinstance(said, str) else []


def _payee(path: str, kind: Kind, why: str) -> tuple[Kind, str]:
    """Who gets a letter has an address; who gets money, an account."""
    is_payee = kind is Kind.ADDRESS and noun(parts(path)[-1]) in _PAYEES
    return (Kind.ACCOUNT, "who is paid") if is_payee else (kind, why)


def _types(schema: Mapping[str, Any]) -> set[str]:
    """The types that a value may have; `string` where nothing is said."""
    found: set[str] = set()
    for one in (schema, *(_branches(schema))):
        said = one.get("type")
        found |= (
            {said}
            if isinstance(said, str)
            else {each for each in said if isinstance(each, str)}
            if isinstance(said, list)
            else set()
        )
    return found - {"null"} or {"string"}


def _branches(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    branches = schema.get("anyOf", schema.get("oneOf"))
    return [one for one in branches if isinstance(one, dict)] if isinstance(branches, list) else []


def _is_of_record(name: str) -> bool:
    """Whether all that the name talks about is what a system keeps itself."""
    about = nouns(word for word in parts(name) if verb(word) is None or word in _RECORDS)
    return bool(about) and about <= _RECORDS


def _says_world(listed: Listed) -> bool:
    return listed.hints.open_world_hint is not UNSET


def _alike(catalogue: Catalogue) -> Iterator[Line]:
    """Names that a person takes for one another."""
    seen: dict[str, str] = {}
    for name in sorted(catalogue.tools):
        shape = re.sub("[^a-z]", "", name.lower().translate(_SHAPES)).replace("rn", "m").replace("l", "i")
        if (other := seen.setdefault(shape, name)) != name:
            yield Line(name, "name", name, f"it looks like `{other}`")


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"
