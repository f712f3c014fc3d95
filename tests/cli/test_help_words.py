"""Help that fits a terminal, in whole sentences, and topics that agree with the documentation."""

from __future__ import annotations

import pytest

from harness.cli import run
from ostiary.cli.topics import STOPPING
from tests.cli.command_tree import ALL, LEAVES
from tests.support.sources import ROOT

LIMIT = 80


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_help_of_each_option_is_a_sentence(words: tuple[str, ...]) -> None:
    for argument in LEAVES[words].assemble_argument_collection(parse_docstring=True):
        if argument.parse:
            assert (argument.parameter.help or "").endswith((".", ")")), f"{argument.name}: {argument.parameter.help}"


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_fits_80_columns(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(LIMIT))
    ran = run(*words, "--help")
    assert max(map(len, ran.out.splitlines())) <= LIMIT


def test_the_help_of_the_program_lists_its_commands_in_groups() -> None:
    out = run("--help").out
    groups = ("Server and clients", "Identities", "Access", "Stop and restore", "Events and history")
    places = [out.index(f"─ {group} ─") for group in groups]
    assert places == sorted(places)


def test_the_page_about_stopping_has_the_table_of_the_help() -> None:
    page = (ROOT / "docs/reference/stopping.md").read_text("utf-8")
    for one in STOPPING:
        assert f"| `ostiary {one['command']}` | {one['effect']} | {one['state']} | {one['undo']} |" in page
    assert run("help", "stopping").out.splitlines()[1:] == ["\t".join(one.values()) for one in STOPPING]


def test_the_help_command_prints_the_same_text_as_the_help_option() -> None:
    assert run("help", "agent", "list").out == run("agent", "list", "--help").out
    unknown = run("help", "nothing")
    assert (unknown.code, "no command and no topic is called `nothing`" in unknown.err) == (2, True)


@pytest.mark.parametrize("row", STOPPING, ids=lambda row: row["command"])
def test_every_command_of_the_stopping_table_exists(row: dict[str, str]) -> None:
    words = tuple(row["command"].split())
    assert words in LEAVES or words[:1] in LEAVES


def test_every_command_with_a_verb_of_stopping_is_in_the_table() -> None:
    verbs = {"decommission", "end", "quarantine", "revoke", "seal", "stop", "suspend"}
    stopping = {" ".join(words) for words in LEAVES if words[-1].split("-")[0] in verbs and words != ("revoke",)}
    assert stopping <= {row["command"] for row in STOPPING}
