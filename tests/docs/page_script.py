"""Pages of the documentation as one shell script."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from harness.patience import PATIENCE_S

JQ = """#!/bin/sh
exec {python} -c 'import json, sys; print(json.load(open(sys.argv[2]))[sys.argv[1][1:]])' "$2" "$3"
"""
"""A program that stands for `jq` where a page uses it to print one member of a file."""
_BLOCK = re.compile(r"(?:(?<=\n)`(?P<file>[\w./-]+)`:\n\n)?```(?P<kind>\w*)\n(?P<text>.*?)```", re.DOTALL)


def script(pages: list[str]) -> tuple[str, list[tuple[int, str]]]:
    """All pages as one shell script that prints a number before each block of commands, and what each must print."""
    lines, wanted, blocks = [], [], 0
    for match in (match for page in pages for match in _BLOCK.finditer(page)):
        if file := match["file"]:
            lines.append(f"mkdir -p $(dirname {file})\ncat > {file} <<'END OF FILE'\n{match['text']}END OF FILE")
        elif match["kind"] == "sh":
            blocks += 1
            lines.append(f"echo '=== {blocks}'\n{match['text']}")
        elif match["kind"] == "text":
            wanted.append((blocks, match["text"]))
        else:
            assert match["kind"] == "", f"a block of {match['kind']} that is not a file"
    return "\n".join(lines), wanted


def run_script(text: str, folder: Path, *, path: str = "", **settings: str) -> str:
    """Run a script with the commands of this environment, and end all that it leaves running; return what it printed.

    `path`: a folder whose programs come first.
    """
    places = os.pathsep.join(filter(None, (path, str(Path(sys.executable).parent), os.environ["PATH"])))
    output = folder / "output"
    with output.open("w") as file:
        run = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=folder,
            env={**os.environ, "PATH": places, "TERM": "dumb", **settings},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            code = run.wait(PATIENCE_S)
        finally:
            with suppress(ProcessLookupError):  # the script has left nothing running
                os.killpg(run.pid, signal.SIGKILL)
    assert code == 0, output.read_text()
    return output.read_text()


def missing_in(said: str, wanted: list[tuple[int, str]]) -> list[str]:
    """The outputs that a page shows and its blocks did not print."""
    printed = dict(re.findall(r"=== (\d+)\n(.*?)(?==== |\Z)", said, re.DOTALL))
    return [text for block, text in wanted if not is_in(text, printed[str(block)])]


def is_in(wanted: str, said: str) -> bool:
    """Whether the lines are among what was said, in order; `…` stands for anything."""
    spaced = [" ".join(line.split()) for line in said.splitlines()]  # a piped table separates its cells by tabs
    lines = [" ".join(line.split()) for line in wanted.splitlines()]
    pattern = "(?:.*\n)*?".join(re.escape(line).replace("…", ".*") + ".*\n" for line in lines)
    return re.search(pattern, "\n".join([*spaced, ""])) is not None
