"""Pages of the documentation as one shell script."""

from __future__ import annotations

import re

JQ = """#!/bin/sh
exec {python} -c 'import json, sys; print(json.load(open(sys.argv[2]))[sys.argv[1][1:]])' "$2" "$3"
"""
"""A program that stands for `jq` where a page uses it to print one member of a file."""
_BLOCK = re.compile(r"(?:`(?P<file>[\w./-]+)`:\n\n)?```(?P<kind>\w*)\n(?P<text>.*?)```", re.DOTALL)


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


def is_in(wanted: str, said: str) -> bool:
    """Whether the lines are among what was said, in order; `…` stands for anything."""
    spaced = [" ".join(line.split()) for line in said.splitlines()]  # a piped table separates its cells by tabs
    lines = [" ".join(line.split()) for line in wanted.splitlines()]
    pattern = "(?:.*\n)*?".join(re.escape(line).replace("…", ".*") + ".*\n" for line in lines)
    return re.search(pattern, "\n".join([*spaced, ""])) is not None
