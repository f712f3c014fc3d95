"""Layouts of text: the records that a tool wrote as lines, as a table, as markup or as JSON. Pure, in linear time.

A layout has a frame (names of fields, bullets, cells) and values in it. In JSON, a value cannot end its own string, so
values cannot forge the frame (`Layout.is_escaped`). In every other layout, a value with a line break may continue with
lines that look like the frame, and no parser can distinguish them. For such a layout, `certain` yields the fields that
no value can have forged: the fields before the first field that has free text anywhere in the output, because the
author of free text may write line breaks. If the fields of a list item share a line (`Layout.is_inline`), any value can
forge further fields: no field is certain, and `certain` must not be called.

    layout_of("- name: Ann\\n  room: 4\\n- name: Bob\\n  room: 5")      [{"name": "Ann", "room": "4"}, {"name": ..}]
"""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Callable, Container, Iterator, Sequence
from functools import cache
from itertools import groupby, takewhile
from typing import Any, NamedTuple

import msgspec

MAX_LAYOUT = 1 << 18
"""maximum length of a text in characters; a longer text has no layout"""
MAX_LINES = 20_000
MAX_DEPTH = 24
MAX_NAME = 64
"""maximum length of the name of a field in characters"""
MAX_COLUMNS = 64
MAX_WORDS, MAX_VALUE = 2, 64
"""maximum number of words and of characters of a value that does not count as free text"""

_BULLET = re.compile(r"(?:[-*+•]|\d{1,4}[.)])[ \t]+")
_BULLETS = "-*+•"
_RULES = "-=_*~+|: "
_RULE = re.compile(rf"[{re.escape(_RULES)}]{{3,}}")
"""a line that only separates other lines"""
_EMPHASIS = '*_`"'
_UNNAMED = frozenset(':=|"`*\t')
"""characters that the name of a field must not have"""
_FENCE = re.compile(r"([^\n`]{0,128}\s*)```[\w-]*[ \t]*\n(.*)\n```\s*", re.DOTALL)
"""a code fence (```), with at most one line before it"""
_SPLIT = re.compile(r"[,;|] (?=[^\W_][^,;|:]{0,63}: )")
"""separators between fields in one line"""
_WIDE = re.compile(r"\t+| {2,}")
_TAG = re.compile(r"<(/?)([A-Za-z][\w:.-]{0,63})(?:\s[^<>]*)?(/?)>|<[!?][^<>]*>|([^<]+)")
_VOID = frozenset(("br", "hr", "img", "input", "link", "meta"))
_decode = msgspec.json.Decoder().decode


class Layout(NamedTuple):
    value: object
    """records and fields of the text, as the objects, lists and strings of JSON"""
    is_escaped: bool
    """True if no value can forge a part of the frame"""
    is_inline: bool = False
    """true if the fields of a list item share a line, so that any string can forge further fields"""


class _Line(msgspec.Struct, frozen=True, gc=False):
    column: int
    is_item: bool
    name: str | None
    rest: str
    is_apart: bool
    """true if a blank line or a rule is before the line"""


def layout_of(text: str) -> Layout | None:
    """Return the layout of a text: the records that a tool wrote as lines, as a table, as markup or as JSON. None if
    the text as a whole has no layout, or if its records have different fields.
    """
    if len(text) > MAX_LAYOUT:
        return None
    if (fenced := _FENCE.fullmatch(text)) is not None:
        if fenced[1].strip() and _is_framed(fenced[1].strip()):
            return None
        text = fenced[2]
    first = text.lstrip()[:1]
    if first in ("{", "["):
        return _json(text)
    if first == "<":
        return _whole(_markup(text))
    if "\n" not in text.strip() or text.count("\n") > MAX_LINES:
        return None
    lines = [line.rstrip() for line in text.splitlines()]
    value = _table(lines) or _outline(lines) or _sections(lines) or _letters(lines)
    if (inlined := _inlined(value)) is not value:
        return Layout(inlined, is_escaped=False, is_inline=True) if _is_uniform(inlined) else None
    return _whole(value)


def certain(value: object, texts: Container[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield the fields of a layout without escapes that no value can have forged, as (name, value): those before the
    first field that has free text in any record, or a name in `texts` (lower case). Free text may contain line breaks,
    and so imitate further fields.
    """
    free = {name for name, text in fields(value) if is_free(text) or name.lower() in texts}
    return takewhile(lambda field: field[0] not in free, fields(value))


def fields(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield each string in a layout as (name of its field, string), in the order of the text."""
    if isinstance(value, dict):
        for inner, item in value.items():
            yield from fields(item, inner)
    elif isinstance(value, list):
        for item in value:
            yield from fields(item, name)
    else:
        yield name, str(value)


def is_free(text: str) -> bool:
    """Return whether a value is free text: longer than MAX_VALUE, with more than MAX_WORDS words, or with line
    breaks.
    """
    return len(text) > MAX_VALUE or "\n" in text or len(text.split(None, MAX_WORDS + 1)) > MAX_WORDS


def _whole(value: object) -> Layout | None:
    return Layout(value, is_escaped=False) if value and not isinstance(value, str) and _is_uniform(value) else None


def _is_uniform(value: object) -> bool:
    """Return whether all records of each list have the same fields in the same order."""
    if isinstance(value, dict):
        return all(_is_uniform(item) for item in value.values() if not isinstance(item, str))
    if not isinstance(value, list):
        return True
    shapes = {tuple(item) if isinstance(item, dict) else type(item) for item in value}
    return len(shapes) <= 1 and all(map(_is_uniform, value))


def _json(text: str) -> Layout | None:
    """Return the layout of a text that is JSON or JSON lines (one value in each line); None for other text."""
    try:
        return Layout(_decode(text), is_escaped=True)
    except (msgspec.DecodeError, RecursionError):
        lines = [line for line in text.splitlines() if line.strip()]
    if not 2 <= len(lines) <= MAX_LINES:
        return None
    try:
        return Layout([_decode(line) for line in lines], is_escaped=True)
    except (msgspec.DecodeError, RecursionError):
        return None


def _is_framed(line: str) -> bool:
    """Return whether a line may itself be a part of a frame: a field with a value, an item or a row."""
    name, rest = _named(line)
    return (name is not None and bool(rest)) or _BULLET.match(line) is not None or "|" in line or "," in line


def _inlined(value: object) -> object:
    """Return the records of a list in which each item has all its fields in one line (`- name: Ann, room: 4`);
    any other value unchanged.
    """
    if not isinstance(value, list) or not all(isinstance(item, dict) and len(item) == 1 for item in value):
        return value
    lines = [f"{name}: {text}" for item in value for name, text in item.items() if isinstance(text, str)]
    parts = [_SPLIT.split(line) for line in lines]
    if len(lines) < len(value) or not any(len(fields) > 1 for fields in parts):
        return value
    records = [[_named(part) for part in fields] for fields in parts]
    return [{str(name): text for name, text in record} for record in records]


def _sections(lines: Sequence[str]) -> dict[str, Any] | None:
    """Return tables and lists by the names above them, with blank lines between them; None for other text."""
    sections: dict[str, Any] = {}
    for is_blank, block in groupby(lines, key=lambda line: not line):
        if is_blank:
            continue
        head, *rest = block
        name, text = _named(head)
        value = (_table(rest) or _outline(rest)) if rest else None
        if name is None or text or name in sections or value is None:
            return None
        sections[name] = value
    return sections or None


def _letters(lines: Sequence[str]) -> list[dict[str, Any]] | None:
    """Return blocks of headers, each followed by a blank line and a text, with rules between blocks; None for
    other text.
    """
    letters: list[dict[str, Any]] = [{}]
    body: list[str] | None = None
    for line in lines:
        name, text = _named(line)
        if line.startswith("---") and _RULE.fullmatch(line):
            letters.append({})
            body = None
        elif body is not None:
            body.append(line)
            letters[-1][""] = "\n".join(body)
        elif not line:
            body = [] if letters[-1] else None
        elif name is None or name in letters[-1]:
            return None
        else:
            letters[-1][name] = text
    return letters if all(len(letter) > 1 for letter in letters) else None


def _table(lines: Sequence[str]) -> list[dict[str, str]] | None:
    """Return the rows of a table (markdown, ASCII, CSV, TSV, columns with wide gaps), with the first row as
    names; None for other text.
    """
    rows = [line for line in lines if line and not (line[-1] in _RULES and _RULE.fullmatch(line.strip()))]
    if len(rows) < 2:
        return None
    if all("|" in row for row in rows):
        cells = [row.strip().strip("|").split("|") for row in rows]
    elif any(all(mark in row for row in rows) for mark in "\t,;"):
        mark = next(mark for mark in "\t,;" if all(mark in row for row in rows))
        if ": " in rows[0]:
            return None
        try:
            cells = list(csv.reader(rows, delimiter=mark, strict=True))
        except csv.Error:
            return None
    elif _WIDE.search(rows[0].strip()):
        cells = [_WIDE.split(row.strip()) for row in rows]
    else:
        return None
    head, *body = [[cell.strip() for cell in row] for row in cells]
    width = len(head)
    if not 2 <= width <= MAX_COLUMNS or len(set(head)) < width or any(len(row) != width for row in body):
        return None
    if any(not name or len(name) > MAX_NAME or is_free(name) for name in head):
        return None
    return [dict(zip(head, row, strict=True)) for row in body]


def _outline(lines: Sequence[str]) -> object:
    """Return fields (`name: value`), lists, and the lines indented under them, as in YAML; None for other text."""
    scanned = _scanned(lines)
    first = next(scanned, None)
    if first is None or not (first.is_item or first.name):
        return None
    reader = _Outline([first, *scanned])
    value = reader.block(0, MAX_DEPTH)
    return value if reader.at == len(reader.lines) else None


def _scanned(lines: Sequence[str]) -> Iterator[_Line]:
    field_name = cache(_field_name)  # most lines of a text have a name that another line has, too
    is_apart = False
    for line in lines:
        bare = line.lstrip()
        if not bare or (bare[0] in _RULES and _RULE.fullmatch(bare)):
            is_apart = True
            continue
        column = len(line) - len(bare)
        while (bare[:1] in _BULLETS or bare[:1].isdigit()) and (bullet := _BULLET.match(bare)) is not None:
            yield _Line(column, True, None, "", is_apart)
            column, bare, is_apart = column + bullet.end(), bare[bullet.end() :], False
        name, rest = _named(bare, field_name)
        yield _Line(column, False, name, _unquoted(rest) if name is None else rest, is_apart)
        is_apart = False


def _field_name(text: str) -> str | None:
    """Return the name of a field without emphasis; None if the text is no name."""
    name = text.strip(_EMPHASIS)
    return name if name[:1].isalnum() and len(name) <= MAX_NAME and _UNNAMED.isdisjoint(name) else None


def _named(bare: str, field_name: Callable[[str], str | None] = _field_name) -> tuple[str | None, str]:
    """Return the name of a field and its value; None and the entire line if there is no name."""
    for mark in (":", " = "):
        before, separator, rest = bare.partition(mark)
        if separator and (name := field_name(before)) is not None:
            rest = rest.lstrip(_EMPHASIS) if rest[:1] in _EMPHASIS else rest
            if not rest or rest[0] in " \t" or mark != ":":
                return name, _unquoted(rest.strip())
    return None, bare


def _unquoted(text: str) -> str:
    """Return a value without YAML's quotes around it."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return str(_decode(text))
        except msgspec.DecodeError:
            return text
    return text[1:-1].replace("''", "'") if len(text) > 1 and text[0] == text[-1] == "'" else text


class _Outline:
    """Reader of a text whose fields are nested by indentation. `at`: the index of the next line."""

    def __init__(self, lines: list[_Line]) -> None:
        self.lines, self.at = lines, 0

    def block(self, column: int, depth: int) -> Any:
        """Return the value that begins at the next line, if this line's column is `column` or more; otherwise
        an empty text.
        """
        first = self._next(column)
        if first is None or not depth:
            return ""
        if first.is_item:
            return self._items(first.column, depth)
        return self._texts(first.column) if first.name is None else self._fields(first.column, depth)

    def _next(self, column: int) -> _Line | None:
        line = self.lines[self.at] if self.at < len(self.lines) else None
        return line if line is not None and line.column >= column else None

    def _items(self, column: int, depth: int) -> list[Any]:
        items: list[Any] = []
        while (line := self._next(column)) is not None and line.column == column and line.is_item:
            self.at += 1
            items.append(self.block(column + 1, depth - 1))
        return items

    def _texts(self, column: int) -> str:
        texts: list[str] = []
        while (line := self._next(column)) is not None and line.column == column and line.name is None:
            if line.is_item:
                break
            self.at += 1
            texts.append(line.rest)
        return "\n".join(texts)

    def _fields(self, column: int, depth: int) -> Any:
        """Return a record; or a list of records, if the name of the first field repeats."""
        record: dict[str, Any] = {}
        records = [record]
        while (line := self._next(column)) is not None and line.column == column and line.name is not None:
            if line.name in record:
                if line.name != next(iter(record)):
                    break
                record = {}
                records.append(record)
            self.at += 1
            record[line.name] = self._value(line, depth)
        return records if len(records) > 1 else record

    def _value(self, line: _Line, depth: int) -> Any:
        following = self._next(line.column)
        if following is None or (following.column == line.column and not following.is_item):
            return line.rest
        if line.rest and following.column == line.column:
            return line.rest
        if not line.rest:
            return self.block(following.column, depth - 1)
        lines = [line.rest]
        while (more := self._next(line.column + 1)) is not None and not more.is_apart:
            lines.append(more.rest if more.name is None else f"{more.name}: {more.rest}")
            self.at += 1
        return "\n".join(lines)


def _markup(text: str) -> object:
    """Return the rows of the first table of HTML, or the elements of XML by name; None if the tags are not nested."""
    stack: list[tuple[str, list[tuple[str, Any]], list[str]]] = [("", [], [])]
    for count, tag in enumerate(_TAG.finditer(text)):
        closing, name, empty, text_part = tag.groups()
        if count > MAX_LINES or len(stack) > MAX_DEPTH:
            return None
        if text_part is not None:
            stack[-1][2].append(text_part)
        elif name is None or name.lower() in _VOID or empty:
            continue
        elif not closing:
            stack.append((name, [], []))
        elif len(stack) > 1 and stack[-1][0] == name:
            _, inner, texts = stack.pop()
            words = html.unescape("".join(texts)).strip()
            stack[-1][1].append((name, _element(inner) if inner and not words else words))
        else:
            return None
    return _rows(_element(stack[0][1])) if len(stack) == 1 else None


def _element(inner: list[tuple[str, Any]]) -> Any:
    names = [name for name, _ in inner]
    if len(set(names)) == len(names):
        return dict(inner)
    return [value for _, value in inner] if len(set(names)) == 1 else [{name: value} for name, value in inner]


def _rows(value: object) -> object:
    """Return the rows of a table, with the first row as names; any other value unchanged."""
    while isinstance(value, dict) and len(value) == 1:
        [value] = value.values()
    if isinstance(value, dict) and {*map(str.lower, value)} == {"thead", "tbody"}:
        head, body = value.values()
        value = [*head.values(), *(body if isinstance(body, list) else body.values())] if isinstance(head, dict) else ""
    if isinstance(value, list) and all(isinstance(row, list) for row in value) and len(value) > 1:
        head, *rows = value
        if len({*map(str, head)}) == len(head) and all(len(row) == len(head) for row in rows):
            return [dict(zip(map(str, head), row, strict=True)) for row in rows]
    return value
