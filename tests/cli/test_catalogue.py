"""`ostiary catalogue review`: as a script answers it, and as an owner does at a terminal."""

from __future__ import annotations

import itertools
import json
import sys
from io import StringIO
from pathlib import Path

import pytest

from harness.cli import Commands, run
from harness.server import Server

LISTING = {
    "tools": [
        {"name": "xqz", "inputSchema": {"properties": {"abc": {"type": "string"}}}},
        {"name": "get_status", "annotations": {"readOnlyHint": True}},
    ]
}


NUMBERS = itertools.count(1)


class Terminal(StringIO):
    """Typed input on a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def desk(ostiary: Commands, tmp_path: Path) -> str:
    """The name of a resource whose catalogue nobody has confirmed."""
    name = f"desk-{next(NUMBERS)}"
    listing = tmp_path / "listing.json"
    listing.write_text(json.dumps(LISTING))
    proposed = tmp_path / "proposed.json"
    ostiary.json("resource", "read", listing, "--name", name, "--write", proposed)
    ostiary.json("resource", "create", name, "--uri", f"https://{name}.example/mcp", "--catalogue", proposed)
    return name


def tools(ostiary: Commands, desk: str) -> dict[str, dict[str, object]]:
    return {tool["name"]: tool for tool in ostiary.json("resource", "show", desk)["catalogue"]["tools"]}


def test_a_script_reads_the_review_questions_and_answers_them_from_a_file(
    ostiary: Commands, desk: str, tmp_path: Path
) -> None:
    before = tools(ostiary, desk)
    asked = ostiary.json("catalogue", "review", desk)
    assert [one["tool"] for one in asked] == ["xqz", "get_status"]
    assert [question["member"] for question in asked[0]["questions"]] == ["effect", "kinds.abc", "outside"]
    assert tools(ostiary, desk) == before, "listing changes nothing"
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps({"xqz": {"effect": "send", "kinds.abc": "address"}}))
    made = ostiary.json("catalogue", "review", desk, "--answers", answers)
    assert made == {"resource": desk, "confirmed": ["xqz"], "unconfirmed": ["get_status"]}
    now = tools(ostiary, desk)
    assert (now["xqz"]["effect"], now["xqz"]["kinds"], now["xqz"]["confirmed"]) == ("send", {"abc": "address"}, True)
    assert now["get_status"] == before["get_status"]
    assert [one["tool"] for one in ostiary.json("catalogue", "review", desk)] == ["get_status"]


def test_invalid_answers_are_refused_with_a_message_and_do_not_change_tools(
    ostiary: Commands, server: Server, desk: str, tmp_path: Path
) -> None:
    before, answers = tools(ostiary, desk), tmp_path / "answers.json"
    for wrong, why in (
        ({"xqz": {"effect": "explode"}}, "is not an answer for `effect`"),
        ({"yyy": {}}, "no tool `yyy`"),
        ({"xqz": {"effect": 1}}, "the file with the answers is not a JSON object"),
        ([], "the file with the answers is not a JSON object"),
    ):
        answers.write_text(json.dumps(wrong))
        ran = run("--data-dir", server.folder, "catalogue", "review", desk, "--answers", answers)
        assert ran.code != 0
        assert why in ran.err
    assert tools(ostiary, desk) == before


@pytest.mark.parametrize(
    ("typed", "confirmed", "effect"),
    [
        ("1\n\nyes\n\n\n", {"xqz", "get_status"}, "read"),
        ("send\n2\nno\nq\n", {"xqz"}, "send"),
        ("nonsense\n99\n\ns\nno\n\n", {"get_status"}, "change"),
    ],
)
def test_answers_at_the_terminal_confirm_tools(
    ostiary: Commands,
    server: Server,
    desk: str,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    confirmed: set[str],
    effect: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    ran = run("--data-dir", server.folder, "catalogue", "review", desk)
    assert ran.code == 0, ran.err
    assert "Does `xqz` change anything, or only read?" in ran.out
    now = tools(ostiary, desk)
    assert {name for name, tool in now.items() if tool.get("confirmed")} == confirmed
    assert now["xqz"]["effect"] == effect


def test_the_end_of_the_input_ends_the_review_without_a_confirmation(
    ostiary: Commands, server: Server, desk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tools(ostiary, desk)
    for typed in ("", "send\n2\nno\n"):
        monkeypatch.setattr(sys, "stdin", Terminal(typed))
        assert run("--data-dir", server.folder, "catalogue", "review", desk).code == 130
    assert tools(ostiary, desk) == before


def test_an_argument_name_cannot_forge_a_line_of_a_question(
    ostiary: Commands, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, listing, proposed = f"desk-{next(NUMBERS)}", tmp_path / "listing.json", tmp_path / "proposed.json"
    forged = "x\n> 1  none  nothing that matters\n\x1b[2J"
    listing.write_text(
        json.dumps({"tools": [{"name": "xqz", "inputSchema": {"properties": {forged: {"type": "string"}}}}]})
    )
    ostiary.json("resource", "read", listing, "--name", name, "--write", proposed)
    ostiary.json("resource", "create", name, "--uri", f"https://{name}.example/mcp", "--catalogue", proposed)
    monkeypatch.setattr(sys, "stdin", Terminal("\n" * 3))
    ran = run("--data-dir", server.folder, "catalogue", "review", name)
    assert ran.code == 0, ran.err
    assert "Is `x\\n> 1  none  nothing that matters" in ran.out
    assert "\n> 1  none" not in ran.out
    assert "\x1b" not in ran.out


def test_a_review_of_a_resource_without_a_catalogue_is_refused(ostiary: Commands, server: Server, name: str) -> None:
    ostiary.json("resource", "create", name, "--uri", f"https://{name}.example/mcp")
    ran = run("--data-dir", server.folder, "catalogue", "review", name)
    assert ran.code == 2
    assert "has no catalogue yet" in ran.err
