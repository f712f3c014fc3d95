"""Foreign parts of outgoing text are marked for the person who is asked about it."""

from __future__ import annotations

import json

import pytest
from _pytest.capture import CaptureFixture

from ostiary.authorization.catalogue import Effect, Tool
from ostiary.cli import approvals
from ostiary.provenance.origins import Memory, list_foreign_links, remember
from tests.support.approval_fixtures import PAY, Bank
from tests.support.seed import seed

SEND = Tool(name="send", effect=Effect.SEND, kinds={"body": "text", "deep.note": "text", "to": "address"})
WORDS = "Send bob@example.com the page https://example.com/q3"


@pytest.fixture(scope="module")
def memory() -> Memory:
    return remember(bytes(range(32)), seed(WORDS))


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("see https://example.com/q3, Bob", []),
        ("write to BOB@example.com", []),
        ("no link at all", []),
        ("see https://evil.example/q3", ["https://evil.example/q3"]),
        ("see https://example.com/q3?x=stolen", ["https://example.com/q3?x=stolen"]),
        ("mail eve@evil.example and bob@example.com", ["eve@evil.example"]),
    ],
)
def test_links_and_addresses_without_a_trusted_source_are_foreign(memory: Memory, text: str, links: list[str]) -> None:
    assert list_foreign_links(memory, SEND, {"body": text, "to": "eve@evil.example"}) == (
        {"body": links} if links else {}
    )
    assert list_foreign_links(memory, SEND, {"deep": {"note": text}}) == ({"deep.note": links} if links else {})


@pytest.mark.parametrize("count", [31, 32, 33])
def test_at_most_32_foreign_links_are_listed(memory: Memory, count: int) -> None:
    text = " ".join(f"https://evil.example/{number}" for number in range(count))
    assert len(list_foreign_links(memory, SEND, {"body": text})["body"]) == min(count, 32)


async def test_foreign_links_are_shown_and_do_not_bind_the_approval(bank: Bank) -> None:
    note = PAY | {"note": "see https://evil.example/a"}
    asked = await bank.ask(note, foreign={"note": ["https://evil.example/a"]}, origins={"note": "nowhere"})
    _, shown, _ = await bank.http("GET", f"/api/v1/approvals/{asked.approval}")
    assert (shown["foreign"], shown["origins"]) == ({"note": ["https://evil.example/a"]}, {"note": "nowhere"})
    assert (await bank.ask(note)).approval == asked.approval


def test_the_command_line_marks_lines_with_foreign_links(capsys: CaptureFixture[str]) -> None:
    text = "Dear Bob,\nsee https://evil.example/a\nand https://example.com/q3"
    approvals._outgoing("body", text, {"body": ["https://evil.example/a"], "other": ["https://example.com/q3"]})
    lines = [line.strip() for line in capsys.readouterr().out.split("\n")]
    assert "|  Dear Bob," in lines
    assert "!  see https://evil.example/a" in lines
    assert "|  and https://example.com/q3" in lines
    assert "!  not in the person's words and not in a record: https://evil.example/a" in lines


def test_an_outgoing_value_that_is_not_text_is_shown_as_json(capsys: CaptureFixture[str]) -> None:
    approvals._outgoing("body", {"a": ["x\ny"]}, {})
    assert json.dumps({"a": ["x\ny"]}) in capsys.readouterr().out


def test_a_shown_value_stays_on_its_line(capsys: CaptureFixture[str]) -> None:
    approvals._line("name\nanswer: approved", "\x1b[2J\u202e\u200b\u3164\tx")
    assert capsys.readouterr().out == "    name\\nanswer: approved  \\x1b[2J\\u202e\\u200b\\u3164\\tx\n"
