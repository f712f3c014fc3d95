"""A proposal from the definitions of an MCP server's tools: effect, open world, kinds of arguments.

Each line of the proposal has a reason, and the owner of the resource confirms each line
(`ostiary.catalogue_advisor.review`). Schemas and hints decide. The words of names and descriptions can only make a tool
look more dangerous, or save a question if name and description agree; they never make content trusted.

    read < write, change < send, share < pay, destroy < administer

1. Hints. `readOnlyHint: true` is `read` whatever the name says; `destructiveHint: true` is `destroy` and
   `destructiveHint: false` is `write`, unless name or description say more.
2. Without these, the worse of name and description, if one of them says more than `read`.
3. `read`, where the name says so and the description agrees, or the tool takes no more than one text.
4. Otherwise the effect is unknown: it is a `change`, and the origins of its values decide.

A read from an address in an open world counts as a send, unless a hint says that the tool only reads; its addresses are
judged in both cases. A read that names the file or the folder in which it stores its result counts as a write, unless a
hint says that the tool only reads or only the description of the argument says so; the file is then judged as an
address. A tool that needs an amount and the account of a recipient counts as a payment. An
argument that a call may leave out, such as the account of the caller, makes no payment.

An argument has a kind if its format, another tool's output or its name states the kind. Any other text argument of a
tool with an effect has no kind: each value is judged by its form (`ostiary.provenance.origins.value_kinds`).

A server's own definitions make nothing trusted: until the owner sets `outside: false`, the output of a tool is
untrusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from ostiary.authorization.arguments.shape import branches, properties_of
from ostiary.authorization.catalogue import GRAVE, METHODS, Catalogue, Effect, Kind, Tool
from ostiary.authorization.catalogue.listed import Listed, listing_of, parse_listed, visible
from ostiary.catalogue_advisor.language import (
    CONJUNCTIONS,
    GROUPS,
    NOUNS_TOO,
    VERBS,
    effects_of,
    noun,
    nouns,
    parts,
    stems,
    verb,
    verbs_of,
)

RANK = {
    Effect.READ: 0,
    Effect.WRITE: 1,
    Effect.CHANGE: 1,
    Effect.SEND: 2,
    Effect.SHARE: 2,
    Effect.PAY: 3,
    Effect.DESTROY: 3,
    Effect.ADMINISTER: 4,
}
_DESTROYS = ((Effect.DESTROY,), (Effect.DESTROY, Effect.CHANGE))
_GRAVE = [(effect,) for effect in GRAVE]
MAX_KINDS = 64
MAX_DEPTH = 4
MAX_FIELDS = 10_000
AGREED = "its name and its description"
A_NUMBER = "a number with decimals"
STORED_THERE = "the tool stores its result there"
UNKNOWN = "neither hints nor words state the effect: the origins of the values decide"
MAX_NAME = 256
MAX_SENTENCE = 400
_RETURNS = frozenset(["return", "obtain", "output", "provide"])
"""verbs that mean a read in the description of a tool, and something else in the request of a person"""
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
            target name reference""",
        Kind.TEXT: """body content message text subject title description note comment summary caption html markdown
            reply answer reason memo prompt instruction detail remark heading headline topic statement feedback
            review question transcript quote greeting bio""",
    }.items()
    for head in heads.split()
}
"""the kind of an argument, by the last word of its name"""
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
"""Names of arguments with an address to which a read connects. Any other address of a read identifies a person."""
_PLAIN = re.compile(r"(?!localhost$)[^.:/@]+")
"""an example that has not the form of a host or a link"""
_QUOTED = re.compile(r"""(?<!\w)(['"`])([^'"`\n]{1,64})\1""")
_ARGUMENT = re.compile(r"[ \t]*[-*]?[ \t]*`?(\w{1,64})`?[ \t]*(?:\([^()\n]{0,64}\))?:[ \t]+(.+)")
"""a line of a description that describes one argument: `name: ..`, `- name (string): ..`"""
_LANGUAGES = frozenset(["command", "cypher", "expression", "graphql", "script", "sql"])
"""words by which a description says that a machine reads a text"""
_FORMATS = {
    "email": Kind.ADDRESS,
    "idn-email": Kind.ADDRESS,
    "uri": Kind.ADDRESS,
    "url": Kind.ADDRESS,
    "iri": Kind.ADDRESS,
    "hostname": Kind.ADDRESS,
    "date": Kind.TIME,
    "date-time": Kind.TIME,
    "time": Kind.TIME,
    "password": Kind.SECRET,
}
_LINKS = ("uri", "url", "iri")
_STORED = frozenset(["dest", "destination", "download", "export", "out", "output", "save", "store", "write"])
_STORES = frozenset(["save", "store", "write"])
"""verbs in the description of an argument that names the file for a result"""
_FILES = frozenset(["dir", "directory", "file", "filename", "filepath", "folder", "location", "path"])
_HERE = frozenset(["local", "target"])
_TO = frozenset(["as", "into", "to"])
_RECORDS = frozenset(
    noun(word)
    for word in (
        "account",
        "balance",
        "clock",
        "contact",
        "count",
        "currency",
        "date",
        "day",
        "directory",
        "info",
        "limit",
        "member",
        "permission",
        "preference",
        "profile",
        "role",
        "setting",
        "status",
        "time",
        "user",
        "version",
    )
)
"""Records that the system itself maintains, so that their content is not from third parties."""
_PREPOSITIONS = frozenset(["at", "by", "for", "from", "in", "of", "on", "to", "with"])
_SHAPES = str.maketrans("015", "ois")


@dataclass(frozen=True, slots=True)
class ReadingLine:
    """A proposed member of a tool, with the reason. Of the server's own words, a line quotes only names of
    tools and arguments, URIs and prompts.
    """

    tool: str
    member: str
    value: str
    why: str


@dataclass(frozen=True, slots=True)
class Reading:
    catalogue: Catalogue
    lines: tuple[ReadingLine, ...]


def propose_catalogue(resource: str, unverified_result: object) -> Reading:
    """Propose a catalogue from the results of MCP's list methods, all pages together. Raises Malformed for other
    results, Invalid for a tool that is not valid.
    """
    listing = listing_of(unverified_result)
    parsed = parse_listed(listing)
    fields = output_fields(listed.output_schema or {} for listed, _ in parsed)
    readings = [_read(listed, definition, fields) for listed, definition in parsed]
    catalogue = Catalogue.listed(resource, listing, [tool for tool, _ in readings])
    methods = [line for name in METHODS if name in catalogue.tools for line in _of_method(catalogue.tools[name])]
    return Reading(catalogue, (*(line for _, lines in readings for line in lines), *methods, *_alike(catalogue)))


def explain(tool: Tool) -> tuple[ReadingLine, ...]:
    """Return a line for each member of a tool in a catalogue, with the reason. If a member equals the present
    proposal, the reason is that of the proposal; else the line names the hints, other tools or the owner as the
    source.
    """
    listed = Listed(name=tool.name, description=tool.description, input_schema=tool.arguments)
    read_again, lines = _read(listed, tool.definition, frozenset())
    why = {line.member: line.why for line in lines if line.member.startswith("kinds.") or line.member == "effect"}
    stated = "stated by the hints or by the owner"
    return (
        ReadingLine(
            tool.name, "effect", tool.effect.value, why["effect"] if tool.effect is read_again.effect else stated
        ),
        ReadingLine(tool.name, "open_world", "yes" if tool.open_world else "no", stated),
        *(
            ReadingLine(
                tool.name,
                f"kinds.{path}",
                word,
                why[f"kinds.{path}"]
                if read_again.kinds.get(path) == word
                else "other tools return such a value, or the owner has stated the kind",
            )
            for path, word in tool.kinds.items()
        ),
    )


def output_fields(schemas: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Return the names of numbers and texts in the results of tools, from their output schemas. For `id` of an
    object `order`, the names are `id` and `orderid`.
    """
    names = set[str]()
    for root in schemas:
        _add_field_names(names, root)
    return frozenset(names)


def _add_field_names(names: set[str], root: Mapping[str, Any]) -> None:
    """Add the names of the fields of one output schema to `names`, at most MAX_FIELDS of all schemas."""
    todo: list[tuple[str, object, int]] = [("", root, 0)]
    while todo and len(names) < MAX_FIELDS:
        above, schema, depth = todo.pop()
        for one in branches([schema], root) if depth < MAX_DEPTH * 2 else ():
            todo += [(above, one[name], depth + 1) for name in ("items", "additionalProperties") if name in one]
            for name, inner in properties_of(one).items():
                todo.append((name, inner, depth + 1))
                if isinstance(inner, dict) and _types(inner, root) & {"integer", "number", "string"}:
                    names.update((_plain(name), _plain(f"{noun(_plain(above))}{name}")))


def _plain(name: str) -> str:
    return "".join(parts(name[:MAX_NAME]))


def _of_method(tool: Tool) -> Iterator[ReadingLine]:
    yield ReadingLine(tool.name, "effect", tool.effect.value, "a method of MCP")
    yield from (ReadingLine(tool.name, f"kinds.{path}", kind, "a method of MCP") for path, kind in tool.kinds.items())
    yield from (ReadingLine(tool.name, "offers", visible(one), "the server lists this value") for one in tool.offers)


def _read(listed: Listed, definition: str, fields: frozenset[str]) -> tuple[Tool, list[ReadingLine]]:
    plain = listed.tool(definition)
    effect, why = _effect(listed)
    schema = listed.input_schema
    is_read = effect is Effect.READ
    is_hinted = listed.hints.read_only_hint is True
    saves = is_read and not is_hinted and _saves(listed.name, schema)
    kinds = _kinds(plain, schema, fields, is_read=is_read, may_store=not saves)
    has = {kind for kind, of in kinds.values() if of != STORED_THERE}
    if effect is Effect.READ and plain.open_world and Kind.ADDRESS in has and not is_hinted:
        effect, why = Effect.SEND, "the request of the tool goes to an address in an open world"
    elif saves:
        effect, why = Effect.WRITE, "an argument says where the result is stored"
    elif 0 < RANK[effect] < RANK[Effect.PAY] and {Kind.AMOUNT, Kind.ACCOUNT} <= {
        kind for path, (kind, _) in kinds.items() if _is_needed(path, schema)
    }:
        effect, why = Effect.PAY, "the tool needs an amount and the account of the recipient"
    if effect is Effect.PAY:
        kinds = {path: _payee(path, kind, of) for path, (kind, of) in kinds.items()}
    tool = replace(plain, effect=effect, kinds={path: kind.value for path, (kind, _) in kinds.items()})
    world = "stated by the hints" if listed.hints.open_world_hint is not UNSET else "no hint states a closed world"
    lines = [
        ReadingLine(tool.name, "effect", effect.value, why),
        ReadingLine(tool.name, "open_world", "yes" if tool.open_world else "no", world),
        *(ReadingLine(tool.name, f"kinds.{path}", kind.value, of) for path, (kind, of) in kinds.items()),
    ]
    return tool, lines


def _kinds(
    tool: Tool, schema: Mapping[str, Any], fields: frozenset[str], *, is_read: bool, may_store: bool = True
) -> dict[str, tuple[Kind, str]]:
    """Return the kinds of the arguments, each with the reason, by dotted path."""
    lines_of = {match[1]: match[2] for match in map(_ARGUMENT.match, tool.description.splitlines()) if match}
    kinds = (
        (path, _kind(path.rpartition(".")[2], element, schema, fields, lines_of, is_read=is_read, may_store=may_store))
        for path, element in _leaves(schema, schema)
    )
    return dict(islice(((path, kind) for path, kind in kinds if kind is not None), MAX_KINDS))


def kinds_for(tool: Tool, effect: Effect) -> dict[str, str]:
    """Return the kinds of the arguments of a tool whose owner states that the tool reads, or that the tool does not
    only read. A kind stays if the definition does not give it: other tools return such a value, or the owner stated it.
    """
    before, after = (
        _kinds(tool, tool.arguments, frozenset(), is_read=one is Effect.READ) for one in (tool.effect, effect)
    )
    other = {path: word for path, word in tool.kinds.items() if path not in before or before[path][0] != word}
    return {path: kind.value for path, (kind, _) in after.items()} | other


def _effect(listed: Listed) -> tuple[Effect, str]:
    """Return the proposed effect, and the reason."""
    hints = listed.hints
    named, described = _done_by_name(parts(listed.name)), _done_by_sentence(listed.description or "")
    sources = [(named, "its name"), (described, "its description")]
    effect, of = max(
        ((one, of) for one, of in sources if one not in (None, Effect.READ)),
        key=lambda pair: RANK[pair[0] or Effect.READ],
        default=(None, ""),
    )
    if hints.read_only_hint is True:
        return Effect.READ, "the hints of the server" if effect is None else f"the hints, though {of} says `{effect}`"
    if hints.destructive_hint is not UNSET:
        hinted = Effect.DESTROY if hints.destructive_hint else Effect.WRITE
        is_more = effect is not None and RANK[effect] >= RANK[hinted] and effect is not hinted
        return (effect, f"{of} says more than the hints") if effect and is_more else (hinted, "the hints of the server")
    if effect is not None:
        return effect, AGREED if named is described else of
    if named is Effect.READ and hints.read_only_hint is UNSET:
        if described is Effect.READ:
            return Effect.READ, AGREED
        if _count_texts(listed.input_schema) <= 1:
            return Effect.READ, "its name, and at most one argument is a text"
    return Effect.CHANGE, UNKNOWN


def _count_texts(schema: Mapping[str, Any]) -> int:
    """Count the arguments that accept free text: not a boolean, not an integer, and not limited to listed values."""
    return sum(
        not isinstance(inner, dict)
        or not (_is_listed(inner, schema) or _types(inner, schema) <= {"boolean", "integer"})
        for one in branches([schema], schema)
        for inner in properties_of(one).values()
    )


def _is_listed(schema: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    """Return whether the schema accepts only texts that the schema lists."""
    shapes = list(branches([schema], root))
    lists = [one for one in shapes if "enum" in one or "const" in one]
    return bool(lists) and all(one in lists for one in shapes if one.get("type") == "string")


def _done_by_name(words: list[str]) -> Effect | None:
    """Return the most dangerous effect of the verbs in a name: `send_mail`, `mail.send`, `read_and_delete`. A
    verb for a grave effect counts at any position.
    """
    about = nouns(words)
    grave = [word for word in words if word not in NOUNS_TOO and VERBS.get(word, ())[:1] in _GRAVE]
    done = (effects_of(one, about - {one})[0] for one in (*verbs_of(words), *grave))
    return max(done, key=RANK.__getitem__, default=None)


def _done_by_sentence(text: str) -> Effect | None:
    """Return the most dangerous effect of the first verbs of a sentence: `Deletes a file.`, `This tool reads
    and deletes ..`.
    """
    words = parts(_SENTENCE_END.split(text[:MAX_SENTENCE].strip(), maxsplit=1)[0])
    while words and words[0] in _PREAMBLE:
        words = words[1:]
    if words and not _RETURNS.isdisjoint(stems(words[0])):
        words[0] = "get"
    about = nouns(words[1:6])
    led = [word for at, word in enumerate(words) if at == 0 or (at < 6 and words[at - 1] in CONJUNCTIONS)]
    return max((effects_of(stem, about)[0] for word in led if (stem := verb(word))), key=RANK.__getitem__, default=None)


def _leaves(
    schema: Mapping[str, Any], root: Mapping[str, Any], before: str = "", depth: int = MAX_DEPTH
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (dotted path, schema) of each argument, including arguments inside objects and lists of objects."""
    for one in branches([schema], root):
        for name, inner in properties_of(one).items():
            if not isinstance(inner, dict) or "." in name or len(name) > MAX_NAME:
                continue
            element = _element(inner, root)
            if not isinstance(element.get("properties"), dict):
                yield before + name, element
            elif depth > 1:
                yield from _leaves(element, root, f"{before}{name}.", depth - 1)


def _is_needed(path: str, root: Mapping[str, Any]) -> bool:
    """Return whether a call must have the argument at a dotted path. Where an object does not state which of its
    members are required, it counts as requiring all.
    """
    schemas: list[Any] = [root]
    for name in path.split("."):
        shapes = list(branches(schemas, root))
        required = [names for one in shapes if isinstance(names := one.get("required"), list) and names]
        if required and not any(name in names for names in required):
            return False
        inside = [properties_of(one).get(name) for one in shapes]
        schemas = [_element(inner, root) for inner in inside if isinstance(inner, dict)]
    return True


def text_arguments(schema: Mapping[str, Any]) -> list[str]:
    """Return the dotted paths of the arguments that accept free text: no listed values, no format, no number."""
    return [
        path
        for path, element in islice(_leaves(schema, schema), MAX_KINDS)
        if "string" in _types(element, schema) and not _is_listed(element, schema) and _stated(element) is None
    ]


def _element(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of the elements of a list, or of an object that may be absent; any other schema unchanged."""
    for one in branches([schema], root):
        if one.get("type") == "array":
            items = one.get("items", {})
            inside = items if isinstance(items, dict) else {}
            return next((each for each in branches([inside], root) if "properties" in each), inside)
        if isinstance(one.get("properties"), dict):
            return one
    return schema


def _kind(
    name: str,
    schema: Mapping[str, Any],
    root: Mapping[str, Any],
    fields: frozenset[str],
    lines_of: Mapping[str, str],
    *,
    is_read: bool,
    may_store: bool,
) -> tuple[Kind, str] | None:
    """Return the kind of an argument, with the reason. `lines_of`: the lines of the tool's description about arguments,
    by name."""
    types = _types(schema, root)
    if types == {"boolean"} and not is_read and any(VERBS.get(word) in _DESTROYS for word in parts(name)):
        return Kind.OBJECT, "by its name, the switch makes the call destroy something"
    if _is_listed(schema, root) or types & {"boolean", "object"}:
        return None
    if is_read and may_store and "string" in types and _is_stored(name, _described(schema)):
        return Kind.ADDRESS, STORED_THERE
    proposal = _stated(schema) or _kind_of_name(name, schema, types)
    if proposal is None and _plain(name) in fields and (is_read or types <= {"integer", "number"}):
        proposal = Kind.OBJECT, "other tools return such a value"
    if proposal is None:
        return (Kind.AMOUNT, A_NUMBER) if "number" in types and not is_read else None
    kind, why = proposal
    if (
        kind is Kind.ADDRESS
        and noun(parts(name)[-1]) in _PLACES
        and _has_plain_examples(schema, lines_of.get(name, ""))
    ):
        return None
    if "string" not in types and kind not in (Kind.AMOUNT, Kind.ACCOUNT, Kind.OBJECT, Kind.TIME):
        return None  # a number cannot be an address, a person or a text
    if not is_read:
        return kind, why
    if kind is Kind.ADDRESS and noun(parts(name)[-1]) not in _PLACES and schema.get("format") not in _LINKS:
        return Kind.PRINCIPAL, "the value identifies a person whose data the tool reads"
    return None if kind in (Kind.TEXT, Kind.AMOUNT, Kind.TIME) else (kind, why)


def _has_plain_examples(schema: Mapping[str, Any], line: str) -> bool:
    """Return whether the description of an argument quotes at least two examples, none with the form of a host or a
    link. A value that has this form is nevertheless judged as an address in each call. `line`: the line about the
    argument in the description of the tool.
    """
    described = schema.get("description")
    text = described if isinstance(described, str) else line
    examples = [match[2] for match in _QUOTED.finditer(text[:MAX_SENTENCE])]
    return len(examples) > 1 and "format" not in schema and all(map(_PLAIN.fullmatch, examples))


def _stated(schema: Mapping[str, Any]) -> tuple[Kind, str] | None:
    """Return the kind that the schema states: a format, or a text medium (JSON Schema 2020-12, validation 7.3, 8.4)."""
    if (stated := str(schema.get("format"))) in _FORMATS:
        return _FORMATS[stated], "its format"
    return (Kind.TEXT, "its medium") if str(schema.get("contentMediaType")).startswith("text/") else None


def _kind_of_name(name: str, schema: Mapping[str, Any], types: set[str]) -> tuple[Kind, str] | None:
    """Return the kind that the name of an argument suggests, or else its description if the argument is a text;
    None without a kind.
    """
    words = [noun(word) for word in parts(name)]
    head = words[-1] if words else ""
    if words == ["in", "reply", "to"]:
        return Kind.OBJECT, "by its name, the argument is the id of a message"  # RFC 5322 section 3.6.4
    if head == "name" and words[:-1] and words[-2] in _PERSONAL:
        return Kind.PRINCIPAL, "by its name, the argument is the name of a person"
    if head in _NUMBERED and not words[:-1] and "string" not in types:
        return None  # a count, not an identifier
    described = {noun(word) for word in _described(schema)}
    if head in _HEADS and not (head == "statement" and described & _LANGUAGES):
        return _HEADS[head], f"the name ends with `{head}`"
    if head in GROUPS and "string" in types:
        return Kind.OBJECT, "by its name, the argument identifies a thing"
    if "string" in types and not described & _LANGUAGES and any(_HEADS.get(word) is Kind.TEXT for word in described):
        return Kind.TEXT, "the description says that it is a text"
    return None


def _described(schema: Mapping[str, Any]) -> list[str]:
    """Return the words of the first sentence of the description."""
    description = schema.get("description")
    return parts(_SENTENCE_END.split(description[:MAX_SENTENCE], maxsplit=1)[0]) if isinstance(description, str) else []


def _payee(path: str, kind: Kind, why: str) -> tuple[Kind, str]:
    """Return the kind of an argument of a payment: the recipient of money is an account, not an address."""
    is_payee = kind is Kind.ADDRESS and noun(parts(path)[-1]) in _PAYEES
    return (Kind.ACCOUNT, "who is paid") if is_payee else (kind, why)


def _saves(name: str, schema: Mapping[str, Any]) -> bool:
    """Return whether an argument of the tool `name` names a file or a folder in which the result of a read is stored:
    `savePath`, `save_to`, or the `local_path` of a tool that downloads.
    """
    stores = not _STORED.isdisjoint(parts(name))
    for path in text_arguments(schema):
        argument = path.rpartition(".")[2]
        *before, head = parts(argument) or [""]
        is_here = noun(head) in _FILES and not _HERE.isdisjoint(before)
        if _is_stored(argument, ()) or (stores and is_here):
            return True
    return False


def _is_stored(name: str, described: Iterable[str]) -> bool:
    """Return whether an argument names the file or the folder in which the result of a read is stored, by its name
    (`savePath`, `save_to`) or by the words of its description (`filename`: the file to save the result to).
    """
    *before, head = parts(name) or [""]
    is_file, is_stored = noun(head) in _FILES, not _STORED.isdisjoint(before)
    return (is_stored and (is_file or head in _TO)) or (is_file and not _STORES.isdisjoint(described))


def _types(schema: Mapping[str, Any], root: Mapping[str, Any]) -> set[str]:
    """Return the JSON types that a value may have; `string` if the schema states none."""
    stated = [one.get("type") for one in branches([schema], root)]
    types = {each for one in stated for each in (one if isinstance(one, list) else [one]) if isinstance(each, str)}
    return types - {"null"} or {"string"}


def is_of_record(name: str) -> bool:
    """Return whether the nouns in the name of a tool are all records that the system itself maintains. Words
    after a preposition name the place of a search (`get_users_in_channel`), not its results.
    """
    stated = takewhile(lambda word: word not in _PREPOSITIONS, parts(name))
    about = nouns(word for word in stated if verb(word) is None or word in _RECORDS)
    return bool(about) and about <= _RECORDS


def _alike(catalogue: Catalogue) -> Iterator[ReadingLine]:
    """Yield a warning for each name that looks like the name of another tool."""
    by_shape: dict[str, str] = {}
    for name in sorted(catalogue.tools):
        shape = re.sub("[^a-z]", "", name.lower().translate(_SHAPES)).replace("rn", "m").replace("l", "i")
        if (other := by_shape.setdefault(shape, name)) != name:
            yield ReadingLine(name, "name", name, f"the name looks like `{other}`")
