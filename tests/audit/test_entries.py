"""An entry that no server writes is reported with its problem, although its tree is intact."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ostiary.audit import Kind, verify_folder
from ostiary.audit.entries import EARLIEST, FAMILIES, MAX_SKEW, EntryCheck, ResultSchema, Schema
from ostiaryd.ledger.model import Entry, Reason, Result, encode_entry
from tests.audit.export import NOW, make_log
from tests.support.sources import sources

GOOD = {"action": "agent.create", "at": NOW}


def wrong(*entries: dict[str, Any] | bytes, now: int = NOW) -> list[str]:
    check = EntryCheck(now)
    bodies = [entry if isinstance(entry, bytes) else json.dumps(entry).encode() for entry in entries]
    return [check.check(index, body) for index, body in enumerate(bodies)]


DEEP = json.dumps(GOOD | {"detail": {"x": 0}}).replace("0}", "[" * 100_000 + "]" * 100_000 + "}").encode()


@pytest.mark.parametrize(
    "body",
    [b"", b"not json \xff", b"[]", b"1", b"null", b'{"at":1', b"{}", b'{"at":1}', b'{"action":"agent.create"}', DEEP],
)
def test_a_text_that_is_not_a_ledger_entry_is_reported(body: bytes) -> None:
    assert wrong(body)[0].startswith("the text is not a ledger entry: ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"at": "soon"}, "at"),
        ({"at": 1.5}, "at"),
        ({"at": None}, "at"),
        ({"outcome": "fine"}, "fine"),
        ({"action": ""}, "action '' is unknown"),
        ({"action": "agent.create\n"}, "is unknown"),
        ({"action": "coffee.make"}, "action 'coffee.make' is unknown"),
        ({"nonsense": 1}, "nonsense"),
        ({"agent": 7}, "agent"),
        ({"reasons": [{"message": "x"}]}, "code"),
        ({"person": "ada"}, "person 'ada' is malformed"),
        ({"reporter": "rs_1"}, "reporter 'rs_1' is malformed"),
        ({"key": "k" * 42}, "key"),
        ({"facts": "f" * 44}, "facts"),
        ({"rows": {"agent": "A" * 16}}, "row 'agent' is malformed"),
        ({"rows": {"agent ag_1": "A" * 15}}, "row 'agent ag_1' is malformed"),
        ({"rows": {"holding gr_1": "A" * 16 + ".1x"}}, "row 'holding gr_1' is malformed"),
        ({"rows": {"holding gr_1": "A" * 16 + ".1.2"}}, "row 'holding gr_1' is malformed"),
    ],
)
def test_an_invalid_member_of_an_entry_is_reported(change: dict[str, Any], words: str) -> None:
    assert words in wrong(GOOD | change)[0]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"outcome": "deny"},
        {"action": "decide"},
        {"agent": "anything a guard says"},
        {"key": "k" * 43},
        {"person": "pe_" + "0" * 32},
        {"reporter": "ag_" + "a" * 32},
        {"rows": {"agent ag_1": "A" * 16, "task tk": "A" * 16 + ".", "stop x y": ""}},
        {"rows": {"holding gr_1": "A" * 16 + ".1795896000000000"}},
    ],
)
def test_a_valid_entry_has_no_problem(change: dict[str, Any]) -> None:
    assert wrong(GOOD | change) == [""]


@pytest.mark.parametrize(
    ("at", "words"),
    [(EARLIEST - 1, "before 2024"), (EARLIEST, ""), (NOW + MAX_SKEW, ""), (NOW + MAX_SKEW + 1, "in the future")],
)
def test_the_time_of_an_entry_lies_between_2024_and_the_maximum_clock_skew(at: int, words: str) -> None:
    (said,) = wrong(GOOD | {"at": at})
    assert words in said
    assert bool(said) is bool(words)


def test_a_decreasing_time_is_reported_with_the_latest_earlier_entry() -> None:
    times = [NOW - 5, NOW - 5, NOW - 3, NOW - 4, NOW - 3, NOW - 4, NOW]
    said = wrong(*[GOOD | {"at": at} for at in times])
    assert [bool(one) for one in said] == [False, False, False, True, False, True, False]
    assert said[3] == "the time is 1 microseconds before the time of entry 2"
    assert said[5] == "the time is 1 microseconds before the time of entry 4"


@pytest.mark.parametrize(
    ("size", "at"), [(5, (0,)), (5, (4,)), (300, (255, 256)), (700, (0, 511, 699)), (700, (*range(300, 450),))]
)
def test_a_report_states_the_first_wrong_entry_and_the_number_of_wrong_entries(
    tmp_path: Path, size: int, at: tuple[int, ...]
) -> None:
    log = make_log(size)
    entries = list(log.entries)
    for index in at:
        entries[index] = b"not json \xff"
    log = replace(log, entries=tuple(entries))
    report = verify_folder(log.export(tmp_path), key=log.key.vkey, now=NOW)
    assert not report.ok
    assert report.wrong_entries == (at[0], len(at))
    found = report.findings[: len(at)]
    assert [(one.kind, one.index) for one in found] == [(Kind.ENTRY, index) for index in at[:100]]
    assert all(one.message.startswith("the text is not a ledger entry") for one in found)


def test_a_time_that_goes_back_is_reported_in_a_correctly_signed_log(tmp_path: Path) -> None:
    log = make_log(600)
    entries = list(log.entries)
    entries[500] = json.dumps(GOOD | {"at": EARLIEST}).encode()
    log = replace(log, entries=tuple(entries))
    report = verify_folder(log.export(tmp_path), key=log.key.vkey, now=NOW)
    assert report.wrong_entries == (500, 1)
    assert "before the time of entry 499" in report.findings[0].message


def test_an_altered_entry_is_reported_as_altered_and_its_content_is_not_checked(tmp_path: Path) -> None:
    log = make_log(5)
    folder = log.export(tmp_path)
    bundle = folder / "tile/entries/000.p/5"
    bundle.write_bytes(bundle.read_bytes().replace(b"test.entry", b"text.entry", 1))
    report = verify_folder(folder, key=log.key.vkey, now=NOW)
    assert [one.kind for one in report.findings] == [Kind.ALTERED]
    assert report.wrong_entries is None


def test_the_schema_has_the_members_of_the_entries_that_the_server_writes() -> None:
    assert set(Schema.__struct_fields__) == set(Entry.__struct_fields__) - {"kept_facts", "evidence"}
    assert ResultSchema.__struct_fields__ == Result.__struct_fields__
    entry = Entry(
        at=NOW, action="agent.create", reasons=[Reason("code", "words")], result=Result("ok", 1, 2, "internal")
    )
    assert wrong(encode_entry(entry)) == [""]


def test_every_action_in_the_sources_is_of_a_known_family() -> None:
    calls = {"act", "act_as", "beside", "recorded", "record", "add", "Entry"}
    unknown = set()
    for source in sources("src/ostiaryd"):
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in calls:
                for one in (*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "action")):
                    if isinstance(one, ast.Constant) and isinstance(one.value, str) and "." in one.value:
                        unknown |= {one.value} if one.value.partition(".")[0] not in FAMILIES else set()
    assert not unknown
