"""Every command of the command line, by its words."""

from __future__ import annotations

from collections.abc import Iterator

from cyclopts import App

from ostiary.cli import app


def walk(parent: App, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command with its words."""
    for name in parent:
        if not name.startswith("-"):
            yield (*words, name), parent[name]
            yield from walk(parent[name], (*words, name))


ALL = dict(walk(app))
LEAVES = {words: command for words, command in ALL.items() if command.default_command is not None}
