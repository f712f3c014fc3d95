"""A reader of the part of HCL 1 in which policies of Vault are written, and of their form in JSON.

The part consists of blocks (`path "secret/*" { .. }`), members (`capabilities = ["read"]`), texts, numbers, `true`,
`false`, lists, objects, here-documents and comments. Everything else is refused. The number of bytes, the depth and the
number of items are limited. An error names the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ostiary.protocol import canonical
from ostiary.protocol.errors import Malformed

MAX_BYTES = 64 << 10
MAX_DEPTH = 8
MAX_ITEMS = 4096
_TOKEN = re.compile(
    r"""(?P<blank>(?:[ \t\r\n]++|(?:\#|//)[^\n]*+|/\*.*?\*/)++)
      |(?P<text>"(?:[^"\\\n]|\\.)*")|(?P<here><<(?P<indented>-?)(?P<mark>[A-Za-z_][A-Za-z0-9_]*)\n)
      |(?P<number>-?[0-9]{1,18}(?:\.[0-9]{1,18})?(?:[eE][+-]?[0-9]{1,2})?)(?![A-Za-z0-9_.])
      |(?P<word>[A-Za-z_][A-Za-z0-9_.-]*)|(?P<sign>[{}\[\],=])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:([abfnrtv\\\"?'])|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

Value = str | int | float | bool | list["Value"] | dict[str, "Value"]


class Token(NamedTuple):
    """A token of a policy text in HCL: its kind, its value, and its line."""

    kind: str
    value: str | int | float
    line: int


class Block(NamedTuple):
    """A top-level member: its key, its labels (the block `path "x"` has the label `x`), its value, and the line (0 in a
    policy in JSON).
    """

    key: str
    labels: tuple[str, ...]
    value: Value
    line: int


def parse_hcl(text: str) -> list[Block]:
    """Return the top-level members of a text in HCL; if the text begins with a brace, it is read as JSON. Raises
    Malformed for other text, and for a text that is too long.
    """
    if len(text.encode()) > MAX_BYTES:
        raise Malformed(f"the policy has more than {MAX_BYTES} bytes")
    if text.lstrip().startswith("{"):
        return _parse_json(text)
    reader = _Reader(list(_tokens(text)))
    blocks = []
    while not reader.is_at_end:
        blocks.append(reader.read_block())
    return blocks


def _parse_json(text: str) -> list[Block]:
    """Return the top-level members of a policy in JSON. A list stands for several members; the keys in `path` become
    labels.
    """
    content = canonical.parse(text.encode(), max_bytes=MAX_BYTES, max_depth=MAX_DEPTH)
    if not isinstance(content, dict):
        raise Malformed("the policy in JSON is not an object")
    blocks = []
    for key, value in content.items():
        for one in value if isinstance(value, list) else [value]:
            if key == "path" and isinstance(one, dict):
                blocks += [Block(key, (label,), body, 0) for label, body in one.items()]
            else:
                blocks.append(Block(key, (), one, 0))
    if len(blocks) > MAX_ITEMS:
        raise Malformed(
            f"the policy has more than {MAX_ITEMS} members at the top (each path and each element of a list is one)"
        )
    return blocks


def _tokens(text: str) -> Iterator[Token]:
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise Malformed(f"line {line}: unexpected character {text[at]!a}")
        kind, value = str(match.lastgroup), match.group()
        if match["here"] is not None:
            kind = "here"
        start, at = line, match.end()
        line += value.count("\n")
        if kind == "text":
            yield Token("text", _unescape(value[1:-1], start), start)
        elif kind == "here":
            end = re.compile(rf"^[ \t]*{match['mark']}[ \t]*$", re.MULTILINE).search(text, at)
            if end is None:
                raise Malformed(f"line {start}: the here-document {match['mark']} has no end")
            content, at = text[at : end.start()], end.end()
            line += content.count("\n")
            yield Token("text", content, start)
        elif kind == "number":
            yield Token("number", float(value) if re.search("[.eE]", value) else int(value), start)
        elif kind in ("word", "sign"):
            yield Token(kind, value, start)


def _unescape(text: str, line: int) -> str:
    def replace(match: re.Match[str]) -> str:
        letter, short, long, byte, unknown = match.groups()
        if unknown is not None:
            raise Malformed(f"line {line}: unknown escape \\{unknown[:1]!a}")
        if letter is not None:
            return _ESCAPED.get(letter, letter)
        number = int(short or long or byte, 16)
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            raise Malformed(f"line {line}: an escape does not stand for a character")
        return chr(number)

    return _ESCAPE.sub(replace, text)


class _Reader:
    """A reader of the tokens of a policy text in HCL, with its position."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens, self._at, self._items = tokens, 0, 0

    @property
    def is_at_end(self) -> bool:
        return self._at >= len(self._tokens)

    def _peek(self) -> Token:
        return self._tokens[self._at] if not self.is_at_end else Token("end", "the end of the text", self._last_line())

    def _last_line(self) -> int:
        return self._tokens[-1].line if self._tokens else 1

    def _next(self) -> Token:
        token = self._peek()
        self._at += 1
        return token

    def _skip(self, sign: str) -> bool:
        token = self._peek()
        if token.kind == "sign" and token.value == sign:
            self._at += 1
            return True
        return False

    def _count(self, token: Token) -> None:
        self._items += 1
        if self._items > MAX_ITEMS:
            raise Malformed(f"line {token.line}: the policy has more than {MAX_ITEMS} members and elements")

    def read_block(self) -> Block:
        """Return the next top-level block of the policy text. Raises Malformed if the text is no block."""
        token = self._next()
        if token.kind not in ("word", "text"):
            raise Malformed(f"line {token.line}: expected a name, found {token.value!a}")
        self._count(token)
        labels: list[str] = []
        while self._peek().kind in ("text", "word"):
            labels.append(str(self._next().value))
        if self._skip("="):
            if labels:
                raise Malformed(f"line {token.line}: `{token.value}` has labels, so `{{` must follow, not `=`")
            value = self._read_value(1)
        elif self._skip("{"):
            value = self._read_object(1)
        else:
            raise Malformed(f"line {self._peek().line}: expected `=` or `{{`, found {self._peek().value!a}")
        return Block(str(token.value), tuple(labels), value, token.line)

    def _read_object(self, depth: int) -> dict[str, Value]:
        """Return the members up to the closing brace."""
        if depth > MAX_DEPTH:
            raise Malformed(f"line {self._peek().line}: values are nested deeper than {MAX_DEPTH} levels")
        members: dict[str, Value] = {}
        while not self._skip("}"):
            token = self._next()
            if token.kind not in ("word", "text"):
                raise Malformed(f"line {token.line}: expected a name or `}}`, found {token.value!a}")
            self._count(token)
            name = str(token.value)
            if name in members:
                raise Malformed(f"line {token.line}: `{name[:64]}` is repeated")
            if self._skip("="):
                members[name] = self._read_value(depth + 1)
            elif self._skip("{"):
                members[name] = self._read_object(depth + 1)
            else:
                raise Malformed(f"line {self._peek().line}: expected `=` or `{{`, found {self._peek().value!a}")
            self._skip(",")
        return members

    def _read_value(self, depth: int) -> Value:
        token = self._next()
        self._count(token)
        if token.kind in ("text", "number"):
            return token.value
        if token.kind == "word" and token.value in ("true", "false"):
            return token.value == "true"
        if token.kind == "sign" and token.value == "{":
            return self._read_object(depth)
        if token.kind == "sign" and token.value == "[":
            return self._read_list(depth)
        raise Malformed(f"line {token.line}: expected a value, found {token.value!a}")

    def _read_list(self, depth: int) -> list[Value]:
        if depth > MAX_DEPTH:
            raise Malformed(f"line {self._peek().line}: values are nested deeper than {MAX_DEPTH} levels")
        elements: list[Value] = []
        while not self._skip("]"):
            elements.append(self._read_value(depth + 1))
            if not self._skip(",") and not (self._peek().kind == "sign" and self._peek().value == "]"):
                raise Malformed(f"line {self._peek().line}: expected `,` or `]`, found {self._peek().value!a}")
        return elements
