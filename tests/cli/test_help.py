"""Every command says what it does, loads nothing that it does not need, and is what hints call it."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from cyclopts import App

from harness.cli import run
from ostiary.cli import COMMANDS, app, exit_codes
from ostiary.cli.exit_codes import EXIT_CODES
from ostiary.cli.topics import TOPICS
from tests.cli.command_tree import ALL, LEAVES
from tests.support.sources import ROOT, files, sources

HEAVY = ("httpx2", "cryptography", "msgspec", "rich.markdown", "ostiaryd", "uvicorn", "starlette", "mcp")
RECIPES = "docs/extending/recipes.md"
"""The page whose command exists in the copy that tests/docs/test_extending.py makes."""
_NAMED = re.compile(r"\bostiary ((?:[a-z]+(?:-[a-z]+)*)(?: [a-z]+(?:-[a-z]+)*)*)")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")


def test_help_and_version_load_no_large_module() -> None:
    for words in ("--help", "--version"):
        code = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))"
        code += "; from ostiary.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code, words], capture_output=True, text=True, check=True)
        loaded = set(done.stderr.split())
        assert "cyclopts" in loaded
        assert not [name for name in HEAVY if name in loaded]


def test_help_names_every_command_and_fits_80_columns() -> None:
    ran = run("--help")
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 80
    for name, *_ in COMMANDS:
        assert re.search(rf"^│ {name} ", ran.out, re.M)
    assert "OSTIARY_CREDENTIAL" in ran.out


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_has_help_with_a_line_for_each_parameter(words: tuple[str, ...]) -> None:
    ran = run(*words, "--help")
    assert ran.code == 0
    assert f"Usage: ostiary {' '.join(words)}" in ran.out
    assert "[ARGS" not in ran.out, "the line of usage names its optional arguments"
    command = ALL[words]
    assert command.help.strip().endswith(".")
    if command.default_command is not None:
        for argument in command.assemble_argument_collection(parse_docstring=True):
            if argument.parse:
                assert argument.parameter.help, f"{' '.join(words)}: {argument.name} has no help"


def test_the_list_of_commands_begins_with_the_text_of_each_command() -> None:
    for name, _, help, _ in COMMANDS:
        command = LEAVES.get((name,))
        if command is not None and command.default_command is not None:
            assert callable(command.default_command)
            assert (command.default_command.__doc__ or "").startswith(help), name


def _strings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "VALUE" for part in node.values)


def _texts() -> Iterator[tuple[str, str]]:
    """Yield (path, text) for each string of the program, and each line of the documents and of the Makefile."""
    for source in sources("src"):
        yield from ((source.path, text) for text in _strings(source.tree))
    for name in files():
        if (name.endswith(".md") and name != RECIPES) or name == "Makefile":
            yield from ((name, line) for line in (ROOT / name).read_text("utf-8").splitlines())


def _unknown(words: list[str]) -> bool:
    """Return whether the words name no command. Only a command of its own, or nothing, may follow a group."""
    command: Any = app
    for number, word in enumerate(words):
        if word not in command:
            return number == 0 or command.default_command is None
        command = command[word]
    return False


def test_every_command_that_a_hint_or_a_document_names_exists() -> None:
    prose = {"server", "that", "would", "complete", "message"}
    named = [
        (where, found[1])
        for where, text in _texts()
        for found in _NAMED.finditer(text)
        if found[1].split()[0] not in prose and "import" not in text
    ]
    assert len(named) > 30
    assert not [(where, words) for where, words in named if _unknown(words.split())]


@cache
def _options(words: tuple[str, ...]) -> set[str]:
    """Return the options of the longest command that the words begin with; of a group, those of all its commands."""
    while words and words not in ALL:
        words = words[:-1]
    leaves = [leaf for path, leaf in LEAVES.items() if path[: len(words)] == words]
    return {name for leaf in leaves for one in leaf.assemble_argument_collection() for name in one.names}


def _wrong_options(text: str) -> list[str]:
    """Return the options behind each command of a text that are not options of this command."""
    everywhere = {"--data-dir", "--json", "--wide", "--help", "--version", "--system-certs"}
    everywhere |= {"--mcp-config", "--transport"}  # of the programs that `ostiary run` and `ostiary proxy` serve
    parts = [(part, _NAMED.match(part)) for part in re.split(r"(?=\bostiary [a-z])|[`\n]", text)]
    return [
        f"{named[0]} {option}"
        for part, named in parts
        if named is not None
        for option in _OPTION.findall(part)
        if option not in everywhere | _options(tuple(named[1].split()))
    ]


def test_options_of_a_command_in_a_text_are_options_of_that_command() -> None:
    assert not [
        (source.path, wrong)
        for source in sources("src")
        for text in _strings(source.tree)
        if (wrong := _wrong_options(text))
    ]
    assert _wrong_options("see ostiary agent transfer --owner NAME, or ostiary kill list --owner") == [
        "ostiary kill list --owner"
    ]


def test_an_option_in_a_hint_is_an_option_of_a_command() -> None:
    known = _options(()) | {"--data-dir", "--json", "--wide", "--help"}
    named = [
        (source.path, option)
        for source in sources("src")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.keyword) and node.arg == "hint"
        for text in _strings(node.value)
        for option in _OPTION.findall(text)
    ]
    assert len(named) > 50
    assert not [one for one in named if one[1] not in known]


def _hints(tree: ast.AST) -> Iterator[str]:
    """Each hint of an error, and each text of an empty list, with VALUE for each value that it inserts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword):
            names = [node.arg]
        elif isinstance(node, ast.Assign):
            names = [one.id for one in node.targets if isinstance(one, ast.Name)]
        else:
            continue
        if "hint" in names or "empty" in names:
            yield from _whole(node.value)


def _whole(tree: ast.AST) -> Iterator[str]:
    """The strings of an expression, without the parts of an f-string alone."""
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    yield from (next(_strings(node)) for node in ast.walk(tree) if id(node) not in parts and _is_text(node))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


@cache
def _required(words: tuple[str, ...]) -> tuple[int, list[tuple[str, ...]]]:
    """The number of required arguments of a command, and the names of each required option."""
    required = [one for one in LEAVES[words].assemble_argument_collection() if one.parse and one.required]
    arguments = [one for one in required if one.field_info.kind is inspect.Parameter.POSITIONAL_ONLY]
    options = [one.names for one in required if one.field_info.kind is inspect.Parameter.KEYWORD_ONLY]
    return len(arguments), options


def _incomplete(text: str) -> list[str]:
    """Return the commands of a hint that lack a required argument or option; `--help` in place of them is fine."""
    lacking = []
    for part in re.split(r"(?=\bostiary [a-z])|[`;\n]", text):
        named = _NAMED.match(part)
        words = tuple(named[1].split()) if named is not None and "--help" not in part else ()
        while words and words not in LEAVES:
            words = words[:-1]
        if words:
            arguments, options = _required(words)
            rest = part.removeprefix(f"ostiary {' '.join(words)}")
            given = re.sub(r" --[a-z-]+( [^-\s]\S*)?", "", rest).split(",")[0].split()
            if len(given) < arguments or not all(any(name in rest for name in names) for names in options):
                lacking.append(part.strip())
    return lacking


def test_a_command_in_a_hint_has_its_required_arguments() -> None:
    hints = [(source.path, text) for source in sources("src") for text in _hints(source.tree)]
    assert len([text for _, text in hints if _NAMED.search(text)]) > 100
    assert not [(where, lacking) for where, text in hints if (lacking := _incomplete(text))]
    assert _incomplete("remove one: ostiary webhook remove; or see ostiary incident show in_1") == [
        "ostiary webhook remove"
    ]
    assert _incomplete("ostiary aws-key create AGENT") == ["ostiary aws-key create AGENT"]


def _pages() -> Iterator[tuple[str, str]]:
    """Yield each page with its text; a command, or a part in code, that goes on in the next line is one line."""
    for name in files():
        if name.endswith(".md") and not name.startswith("docs/adr/") and name not in {RECIPES, "CHANGELOG.md"}:
            text = (ROOT / name).read_text("utf-8").replace("\\\n", " ")
            yield name, re.sub(r"`[^`\n]*\n[^`\n]*`", lambda code: code[0].replace("\n", " "), text)


def test_options_of_a_command_in_a_page_are_options_of_that_command() -> None:
    assert not [(name, wrong) for name, text in _pages() if (wrong := _wrong_options(text))]


def test_a_command_in_a_block_of_a_page_has_its_required_arguments() -> None:
    lines = [(name, line.partition("  #")[0]) for name, text in _pages() for line in text.splitlines()]
    commands = [(name, line.removeprefix("$ ")) for name, line in lines if line.startswith(("ostiary ", "$ ostiary "))]
    assert len(commands) > 200
    assert not [(name, lacking) for name, line in commands if (lacking := _incomplete(line))]


def test_version_prints_three_numbers() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", run("--version").out.strip())


def test_every_command_takes_a_session_except_serve_demo_and_completion() -> None:
    """Whatever takes a session must end in `session.show`, or in a command that does."""
    silent = [
        words
        for words, command in LEAVES.items()
        if words not in {("serve",), ("demo",), ("completion",)} and "session" not in json.dumps(_parameters(command))
    ]
    assert not silent


def _parameters(command: App) -> list[str]:
    assert callable(command.default_command)
    return list(inspect.signature(command.default_command).parameters)


def test_the_help_of_a_command_has_its_description_and_its_examples() -> None:
    shown = run("protect", "--help").out
    assert "Shows each object, and the command that undoes it." in " ".join(shown.split())
    assert "\n    ostiary protect https://search.example/mcp --name search\n" in shown


def test_the_help_lists_each_exit_code_and_each_topic() -> None:
    codes = {value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}
    assert {0} | codes == exit_codes.EXIT_CODES.keys()
    assert all(f"{code} {meaning}" in " ".join(run("--help").out.split()) for code, meaning in EXIT_CODES.items())
    assert f"Topics: {', '.join(TOPICS)}." in run("help", "--help").out


def test_help_wraps_only_where_the_terminal_ends() -> None:
    lines = run("run", "--help").out.splitlines()
    for line, following in itertools.pairwise(lines[2 : lines.index("    ostiary run -- claude")]):
        if line and following:
            assert len(line.rstrip()) + 1 + len(following.split()[0]) > 80, line
