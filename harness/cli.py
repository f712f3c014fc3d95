"""The command line in this process, with a real server in another process: the output and the exit code of commands."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from harness.patience import PATIENCE_S
from ostiary.cli import main, session

session.SILENCE_S = round(PATIENCE_S)  # a busy server is no reason for a warning among the output


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1, "one line, so that a log of them can be read"
        return json.loads(self.out)


@contextmanager
def environment(**changed: str | None) -> Iterator[None]:
    """Set environment variables for the time of the block; a value of None removes the variable."""
    before = {name: os.environ.get(name) for name in changed}
    try:
        _set(changed)
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def run(*arguments: object) -> Ran:
    """Run a command as the console script does, and return its output and exit code."""
    out, err, argv = StringIO(), StringIO(), sys.argv
    sys.argv = ["ostiary", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = argv
    assert isinstance(code, int)
    return Ran(code, out.getvalue(), err.getvalue())


@dataclass(frozen=True, slots=True)
class Commands:
    """The command `ostiary` for the server with that data folder."""

    folder: Path

    def __call__(self, *arguments: object) -> Ran:
        return run(*arguments, "--data-dir", self.folder)

    def json(self, *arguments: object) -> Any:
        """Run a command that must succeed, and return its JSON."""
        return self(*arguments, "--json").json
