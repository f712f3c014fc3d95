"""Tables on a terminal of 80 and of 120 columns, and piped."""

from __future__ import annotations

from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from ostiary.cli import doctor, output
from ostiary.cli.output import SHORT_ID, UNLIMITED, _Output, facts, fit, table, value_text

HEADINGS = ["NAME", "STATE", "OWNER", "SCOPES", "LAST USE", "ID"]
IDS = ["ag_01a221c4d45477bb81ac4563958e6a54", "ag_01a221c4d9c079868818599a497381db"]
LONG = "billing-bot-with-a-long-name-for-the-quarterly-report-of-europe"
ROWS = [
    ["writer", "active", "ada", "bank:transfer files:read files:write", "2026-11-28 10:48:00Z", IDS[0]],
    [LONG, "decommissioned", "a-team-with-a-long-name", "files:read", "never", IDS[1]],
]


def printed(rows: list[list[str]], width: int, *, is_terminal: bool = True, is_wide: bool = False) -> list[str]:
    """The lines of a table on a terminal of that width, or piped."""
    file = StringIO()
    console = _Output(
        file=file, width=width, force_terminal=is_terminal, color_system=None, highlight=False, soft_wrap=True
    )
    console.is_wide = is_wide
    named = [dict(zip(HEADINGS, row, strict=True)) for row in rows]
    table(named, dict(zip(HEADINGS, HEADINGS, strict=True)), empty="none", console=console)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 81, 120, 160])
def test_a_table_fits_the_terminal_and_names_and_ids_stay_usable(width: int) -> None:
    lines = printed(ROWS, width)
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    assert LONG in text
    for id in IDS:
        assert id[:SHORT_ID] in text


def test_a_long_name_is_printed_on_its_own_line() -> None:
    lines = printed(ROWS, 80)
    assert LONG in lines
    assert not any("…" in line for line in lines if LONG in line)


@pytest.mark.parametrize("width", [20, 40, 60])
def test_a_table_wider_than_the_terminal_shows_each_row_as_a_block(width: int) -> None:
    heading, *lines = printed(ROWS, width)
    assert heading == "NAME"
    assert max(map(cell_len, lines)) == len(LONG)
    assert max(cell_len(line) for line in lines if line != LONG) <= width
    words = "".join("".join(lines).split())
    for row in ROWS:
        for text, label in zip(row[1:-2], HEADINGS[1:-2], strict=True):
            assert f"{label}{text}".replace(" ", "") in words
        assert f"ID{row[-1][:SHORT_ID]}" in words


def test_a_block_leaves_out_a_cell_without_text() -> None:
    lines = printed([["a-name", "active", "ada", "", "", IDS[0]]], 40)
    assert [line.split()[0] for line in lines] == ["NAME", "a-name", "STATE", "OWNER", "ID"]


def test_ids_that_differ_in_the_last_character_are_printed_in_full() -> None:
    twins = [IDS[0], IDS[0][:-1] + "5"]
    lines = printed([["a", "active", "x" * 60, "", "", twins[0]], ["b", "active", "x" * 60, "", "", twins[1]]], 80)
    assert all(any(twin in line for line in lines) for twin in twins)


def test_ids_are_not_shortened_in_wide_output_or_if_the_table_fits() -> None:
    assert all(any(id in line for line in printed(ROWS, 80, is_wide=True)) for id in IDS)
    assert IDS[0] in "\n".join(printed(ROWS[:1], 200))


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        ("2026-01-01 00:00:00Z", "01-01 00:00Z"),
        ("2026-12-31 23:59:59Z", "12-31 23:59Z"),
        ("2025-12-31 23:59:59Z", "2025-12-31"),
        ("2027-01-01 00:00:00Z", "2027-01-01"),
    ],
)
def test_times_are_shortened_where_the_table_does_not_fit(time: str, shown: str) -> None:
    rows = [["name", time, "x" * 60]]
    assert time in fit(rows, ["A", "B", "C"], 120, this_year="2026-")[1]
    line = fit(rows, ["A", "B", "C"], 80, this_year="2026-")[1]
    assert shown in line
    assert time not in line


@pytest.mark.parametrize(
    ("scopes", "shown"),
    [
        (["a:read"], "a:read"),
        (["mail:read", "mail:write"], "mail:read mail:write"),
        (["mail:read", "mail:write", "mail:send"], "mail:read +2"),
        (["calendar-of-the-house:read", "mail:write", "mail:send"], "calendar-of-the-… +2"),
    ],
)
def test_a_list_that_is_too_long_shows_its_first_item_and_how_many_follow(scopes: list[str], shown: str) -> None:
    file = StringIO()
    console = _Output(file=file, width=28, force_terminal=True, color_system=None, highlight=False, soft_wrap=True)
    table([{"name": "writer", "scopes": scopes}], {"name": "NAME", "scopes": "SCOPES"}, empty="none", console=console)
    assert file.getvalue().splitlines()[1] == f"writer  {shown}"


def test_text_wraps_to_two_lines_and_in_the_last_column_without_limit() -> None:
    words = " ".join(f"word{number}" for number in range(30))
    _, *lines = fit([["name", words, words]], ["A", "B", "C"], 60, this_year="2026-")
    assert [line[6:32].rstrip() for line in lines[:3]] == ["word0 word1 word2 word3", "word4 word5 word6 word7 w…", ""]
    assert " ".join(line[34:].strip() for line in lines) == words


@pytest.mark.parametrize(("width", "state"), [(34, "decommissioned"), (33, "decommissi…")])
def test_a_word_of_14_characters_is_cut_only_if_there_is_no_room(width: int, state: str) -> None:
    rows = [["writer", "decommissioned", "it read two secrets of accounting"]]
    [line, *_] = fit(rows, ["NAME", "STATE", "REASON"], width, this_year="2026-")[1:]
    assert line.split()[:2] == ["writer", state]


def test_piped_rows_are_separated_by_tabs_and_not_padded() -> None:
    lines = printed(ROWS, UNLIMITED, is_terminal=False)
    assert [line.split("\t") for line in lines] == [HEADINGS, *ROWS]


def test_a_name_with_controls_cannot_forge_a_row_or_a_cell() -> None:
    [_, line] = printed([["a\tb\nc\x1b[2J", *ROWS[0][1:]]], UNLIMITED, is_terminal=False)
    assert line.split("\t")[0] == "a\\tb\\nc\\x1b[2J"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_label_of_a_fact_cannot_forge_a_line(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent chooses the names of the arguments that `audit show` prints."""
    file = StringIO()
    monkeypatch.setattr(output, "out", _Output(file=file, width=80, force_terminal=is_terminal, color_system=None))
    facts({"argument [/x]": 1, "argument a\noutcome\tok\x1b[2J": 2, "argument [b]": 3})
    lines = file.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["[/x]", "a\\noutcome\\tok\\x1b[2J", "[b]"]


def test_an_empty_list_prints_its_empty_text() -> None:
    assert printed([], 80) == ["none"]


@given(
    st.lists(
        st.lists(st.text("abc _-é漢", max_size=40) | st.sampled_from([*IDS, LONG]), min_size=3, max_size=3),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([80, 120]),
)
def test_any_table_of_three_columns_fits(rows: list[list[str]], width: int) -> None:
    lines = fit([["x", *row[1:]] for row in rows], ["A", "B", "C"], width, this_year="2026-")
    assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (1.5, "1.5"),
        (["a", "b"], "a b"),
        (["a b", "c"], "a b; c"),
        ({"kind": "calls", "limit": 100}, "kind=calls, limit=100"),
        ({"a": {"b": [1, "x=y"]}}, 'a=(b=[1; "x=y"])'),
        ([{"a": 1}, {"b": ""}], 'a=1; b=""'),
    ],
)
def test_values_are_printed_as_text(value: object, text: str) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize(("width", "lines"), [(80, 6), (120, 3), (UNLIMITED, 3)])
def test_lines_of_the_doctor_fit_the_terminal_and_keep_their_text(
    width: int, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output.out, "_width", width)
    saw = "secrets of `ostiary run --egress` are not hidden [bold]: a program runs as the user of the proxy\x1b[2J"
    hint = "chmod 600 /var/lib/ostiary/a-long-name-of-a-folder-without-a-blank-of-more-than-80-columns/admin.json"
    doctor._print(
        [
            {"name": "egress", "state": "weak", "saw": saw, "hint": hint},
            {"name": "a", "state": "ok", "saw": "b", "hint": ""},
        ]
    )
    printed = capsys.readouterr().out.splitlines()
    assert (len(printed), max(map(cell_len, printed)) <= width) == (lines, True)
    assert "".join("".join(printed).split()) == "".join(f"weakegress{saw}{hint}okab".replace("\x1b", "\\x1b").split())
