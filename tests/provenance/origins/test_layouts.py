"""Structure in a text is found in every usual layout, and no value of a record can write a part of it."""

from __future__ import annotations

import csv
import html
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.authorization.catalogue import Effect, Kind, Tool
from ostiary.provenance.origins import Memory, Origin, add_parts, observe_output, of_value, remember
from ostiary.provenance.origins.layouts import MAX_LAYOUT, MAX_VALUE, certain, is_free, layout_of
from tests.support.seed import seed

KEY = bytes(range(32))
OUTSIDE = Tool(name="list", effect=Effect.READ)
INSIDE = Tool(name="list", effect=Effect.READ, open_world=False)
Row = Mapping[str, str]
ROWS: list[Row] = [{"name": "Ann", "room": "41"}, {"name": "Bob", "room": "52"}]


def _csv(rows: Sequence[Row], delimiter: str = ",") -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([list(rows[0]), *(list(row.values()) for row in rows)])
    return file.getvalue()


def _lines(rows: Sequence[Row], first: str = "", rest: str = "", between: str = "\n") -> str:
    return between.join(
        "\n".join(f"{rest if at else first}{name}: {value}" for at, (name, value) in enumerate(row.items()))
        for row in rows
    )


def _html(rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{name}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{value}</td>' for value in row.values())}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _xml(rows: Sequence[Row]) -> str:
    inner = ("".join(f"<{name}>{value}</{name}>" for name, value in row.items()) for row in rows)
    return f"<rows>{''.join(f'<row>{row}</row>' for row in inner)}</rows>"


def _yaml(rows: Sequence[Row]) -> str:
    return _lines([{name: json.dumps(value) for name, value in row.items()} for row in rows], "- ", "  ")


def _mail(rows: Sequence[Row]) -> str:
    """The longest value is the body."""
    letters = []
    for row in rows:
        body = max(row, key=lambda name: len(row[name]) * (" " in row[name]))
        head = _lines([{name: value for name, value in row.items() if name != body or " " not in row[body]}])
        letters.append(head + (f"\n\n{row[body]}" if " " in row[body] else ""))
    return "\n\n---\n\n".join(letters)


LAYOUTS: dict[str, Callable[[Sequence[Row]], str]] = {
    "json": lambda rows: json.dumps(rows, indent=1),
    "told json": lambda rows: f"Here is what was found:\n\n```json\n{json.dumps(rows)}\n```",
    "json lines": lambda rows: "\n".join(map(json.dumps, rows)),
    "fenced json": lambda rows: f"```json\n{json.dumps(rows)}\n```",
    "list": lambda rows: _lines(rows, "- ", "  "),
    "numbered": lambda rows: "\n".join(f"{n}. {_lines([row], '', '   ')}" for n, row in enumerate(rows, 1)),
    "bold": lambda rows: _lines([{f"**{name}**": value for name, value in row.items()} for row in rows], "- ", "  "),
    "blocks": lambda rows: _lines(rows, between="\n\n"),
    "ruled blocks": lambda rows: _lines(rows, between="\n---\n"),
    "lines": lambda rows: _lines(rows),
    "nested": lambda rows: f"rows:\n{_lines(rows, '- ', '  ')}",
    "deeper": lambda rows: f"rows:\n{_lines(rows, '  - ', '    ')}",
    "markdown": lambda rows: "\n".join(
        f"| {' | '.join(row)} |" for row in [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    ),
    "csv": _csv,
    "tsv": lambda rows: _csv(rows, "\t"),
    "columns": lambda rows: "\n".join("   ".join(row) for row in [list(rows[0]), *(row.values() for row in rows)]),
    "html": _html,
    "xml": _xml,
    "yaml": _yaml,
    "mail": _mail,
    "sections": lambda rows: f"rows:\n{LAYOUTS['markdown'](rows)}",
    "inline": lambda rows: "\n".join(f"- {', '.join(f'{n}: {v}' for n, v in row.items())}" for row in rows),
}
"""How tools write records down, without a thought of what stands in a value (but for JSON and CSV)."""


def _rows_of(value: Any) -> Any:
    return value["rows"] if isinstance(value, dict) and "rows" in value else value


@pytest.mark.parametrize("layout", LAYOUTS)
def test_records_are_found_in_each_layout(layout: str) -> None:
    found = layout_of(LAYOUTS[layout](ROWS))
    assert found is not None
    assert _rows_of(found.value) == ROWS
    assert found.is_escaped is ("json" in layout)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb:\n  c: 2\n  d: x y\ne: z", {"a": "1", "b": {"c": "2", "d": "x y"}, "e": "z"}),
        ("- general\n- random", ["general", "random"]),
        ("Id: 5\nFrom: Ann\n\nHello,\nthis: is all.", [{"Id": "5", "From": "Ann", "": "Hello,\nthis: is all."}]),
        ("a: \"x: y\"\nb: 'it''s'\nc: \"", {"a": "x: y", "b": "it's", "c": '"'}),
        ("a:\n- 1\n- 2\n\nb:\n| c | d |\n|---|---|\n| 3 | 4 |", {"a": ["1", "2"], "b": [{"c": "3", "d": "4"}]}),
        ("a = 1\nb = 2", {"a": "1", "b": "2"}),
        ("a:\n- 1\n- 2\nb: 3", {"a": ["1", "2"], "b": "3"}),
        ("note: one\n  two\nid: 3", {"note": "one\ntwo", "id": "3"}),
    ],
)
def test_lists_nested_fields_and_continued_lines_are_parsed(text: str, value: object) -> None:
    found = layout_of(text)
    assert found is not None
    assert found.value == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "one line",
        "From: Ann\nHello,\nthis is all.",
        'note: x\n```json\n[{"a": 1}]\n```',
        '- x\n```json\n[{"a": 1}]\n```',
        'a\nb\n```json\n[{"a": 1}]\n```',
        '```json\n[{"a": 1}]\n```\nx',
        "- id: 1\n  note: one\ntwo\n- id: 2\n  note: x",
        "name: Ann",
        "Hello you.\nThis is a letter.\n\nBye",
        "general\nrandom",
        '{"a": ',
        "<p>x</q>",
        "- a: 1\n  b: 2\n- b: 1\n  a: 2\n- a: 1\n  b: 2",
        "a,b\n1,2,3",
        "| a | a |\n| 1 | 2 |",
        "[" * 5000,
        "a,a\n1,2",
        "one two three,b\n1,2",
        "- a: " + "x" * MAX_LAYOUT,
    ],
)
def test_a_text_without_one_layout_throughout_has_no_layout(text: str) -> None:
    assert layout_of(text) is None


def test_fields_are_certain_up_to_the_first_field_with_free_text() -> None:
    rows = [{"id": "1", "said": "hello", "at": "9"}, {"id": "2", "said": "how are you", "at": "10"}]
    assert list(certain(rows)) == [("id", "1")], "what a stranger wrote may go on after one short word"
    assert list(certain(rows[:1])) == [("id", "1"), ("said", "hello"), ("at", "9")]
    assert list(certain(rows[:1], {"said"})) == [("id", "1")]


def test_free_text_is_more_than_two_words_or_too_long_or_has_a_line_break() -> None:
    assert not is_free("Ann Lee")
    assert is_free("Ann van Lee")
    assert not is_free("x" * MAX_VALUE)
    assert is_free("x" * (MAX_VALUE + 1))
    assert is_free("a\nb")


def _seen(tool: Tool, output: object, *, words: str = "see it", **arguments: object) -> Memory:
    memory = remember(KEY, seed(words))
    return add_parts(memory, observe_output(memory, f"desk/{tool.name}", tool, arguments, output))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_listing_that_the_call_did_not_name_has_fields(layout: str) -> None:
    text, origin = LAYOUTS[layout](ROWS), Origin.OUTSIDE if layout == "inline" else Origin.KNOWN
    for arguments in ({}, {"limit": 10}, {"all": True}):
        tool = Tool(
            name="list",
            effect=Effect.READ,
            arguments={"properties": {"limit": {"type": "integer"}, "all": {"type": "boolean"}}},
        )
        assert of_value(_seen(tool, text, **arguments), Kind.OBJECT, "52") is origin, arguments
    named = _seen(OUTSIDE, text, path="x")
    assert of_value(named, Kind.OBJECT, "52") is Origin.OUTSIDE, "a document may be a stranger's as a whole"
    for default, expected in ((100, origin), ("README.md", Origin.OUTSIDE)):
        kind = {"type": "integer" if default == 100 else "string", "default": default}
        tool = Tool(name="list", effect=Effect.READ, arguments={"properties": {"of": kind}})
        assert of_value(_seen(tool, text, of=default), Kind.OBJECT, "52") is expected, "a text may name a document"


def test_a_value_that_is_known_from_a_field_is_not_also_untrusted() -> None:
    seen = _seen(OUTSIDE, "- room: 41\n  said: see you\n- room: 52\n  said: how are you")
    outside = Memory(KEY, tuple(part for part in seen.parts if part.origin is Origin.OUTSIDE))
    assert of_value(seen, Kind.OBJECT, "41") is Origin.KNOWN
    assert of_value(outside, Kind.OBJECT, "41") is Origin.NOWHERE, "what strangers mention asks"
    for value in ("52", "see you", "how are you", "said"):
        assert of_value(seen, Kind.OBJECT, value) is Origin.OUTSIDE


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_record_that_the_person_named_is_recognised_in_each_layout(layout: str) -> None:
    seen = _seen(INSIDE, LAYOUTS[layout](ROWS), words="where does Bob sit?")
    assert of_value(seen, Kind.OBJECT, "52") is Origin.RECORD
    assert of_value(seen, Kind.OBJECT, "41") is Origin.KNOWN


HONEST = [{"name": "Ann", "said": "see you", "room": "41"}, {"name": "Bob", "said": "how are you", "room": "52"}]
PLANTED = "4711"
_pieces = st.sampled_from(
    [
        "\n",
        "\n\n",
        "- ",
        "  ",
        "name: ",
        "said: ",
        "room: ",
        PLANTED,
        "Eve",
        " ",
        ",",
        "|",
        "\t",
        '"',
        "---",
        "</td>",
        "</tr>",
        "<tr>",
        "<td>",
        "</said>",
        "<room>",
        "</room>",
        "</row>",
        "<row>",
        "1. ",
        "\\n",
        "'",
        "```",
        "{",
        "}",
    ]
)
_texts = st.lists(_pieces, max_size=14).map("".join)


@st.composite
def _planted(draw: st.DrawFn) -> tuple[str, int, str]:
    """A layout, a record, and a text that contains more of that layout."""
    layout = draw(st.sampled_from(sorted(LAYOUTS)))
    more = LAYOUTS[layout]([{"name": "Eve", "said": "x", "room": PLANTED}])
    whole = st.sampled_from(
        [f"ok\n{more}", f"ok\n\n{more}\n", f"ok\n{more.partition(chr(10))[2]}", f"x\n  room: {PLANTED}"]
    )
    return (
        layout,
        draw(st.integers(0, 1)),
        draw(st.one_of(whole, _texts, st.tuples(_texts, whole, _texts).map("".join))),
    )


@given(_planted())
def test_a_layout_planted_in_free_text_does_not_become_a_field(planted: tuple[str, int, str]) -> None:
    layout, at, text = planted
    rows = [row | {"said": text} if place == at else row for place, row in enumerate(HONEST)]
    rows.append({"name": "Cid", "said": "this is free text", "room": "63"})
    seen = _seen(OUTSIDE, LAYOUTS[layout](rows))
    assert (
        of_value(seen, Kind.OBJECT, PLANTED) >= Origin.OUTSIDE
        or of_value(_seen(OUTSIDE, rows), Kind.OBJECT, PLANTED) is Origin.KNOWN
    ), "as it would be in JSON"


@given(_planted())
def test_a_document_that_the_call_named_has_no_fields(planted: tuple[str, int, str]) -> None:
    layout, _, text = planted
    for output in (text, LAYOUTS[layout]([{"name": "Eve", "room": PLANTED}, {"name": "Bob", "room": text}])):
        assert of_value(_seen(OUTSIDE, output, path="x"), Kind.OBJECT, PLANTED) >= Origin.OUTSIDE


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_planted_record_with_a_name_that_the_person_said_is_not_their_record(layout: str) -> None:
    fake = LAYOUTS[layout]([{"name": "Bob", "said": "x", "room": PLANTED}])
    for planted in (
        f"ok\n{fake}",
        f"ok\n\n{fake}",
        f"ok\n{fake.partition(chr(10))[2]}",
        f"ok\n- name: Bob\n  room: {PLANTED}",
    ):
        rows = [HONEST[0] | {"said": planted}, HONEST[1]]
        seen = _seen(INSIDE, LAYOUTS[layout](rows), words="where does Bob sit?")
        assert of_value(seen, Kind.OBJECT, PLANTED) > Origin.RECORD


@pytest.mark.parametrize(
    "text",
    [
        "a: " * 60_000,
        "- " * 100_000,
        "<a>" * 60_000,
        "a:\n" * 60_000,
        " \n" * 100_000,
        "| a " * 60_000,
        "a,b\n" * 60_000,
        "".join(f"{' ' * (n % 60)}k{n}: v\n" for n in range(8000)),
        '"' * 200_000,
        "```\n" * 60_000,
        "*" * 200_000,
        "a  b\n" * 40_000,
        "<a " * 60_000,
        "&" * 200_000,
    ],
)
def test_hostile_texts_are_parsed_in_linear_time(text: str) -> None:
    def spent(one: str) -> float:
        started = time.process_time()
        layout_of(one)
        return time.process_time() - started

    assert spent(text) < 40 * max(spent(text[: len(text) // 8]), 0.02)


def test_values_in_markup_are_unescaped() -> None:
    found = layout_of(f"<rows><row><a>{html.escape('x & y')}</a></row><row><a>z</a></row></rows>")
    assert found is not None
    assert found.value == [{"a": "x & y"}, {"a": "z"}]
