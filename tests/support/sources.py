"""The tree as the architecture tests see it: every file that git knows or would add, Python parsed."""

from __future__ import annotations

import ast
import gc
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Source:
    """A Python file: `path` from the root of the tree, `module` its dotted name (`ostiaryd.ledger.flows`)."""

    path: str
    module: str
    text: str
    tree: ast.Module


@cache
def files() -> tuple[str, ...]:
    """Paths from the root of the tree."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(name for name in listed.split("\0") if name and (ROOT / name).is_file())


@cache
def sources(folder: str) -> tuple[Source, ...]:
    """The files of a folder. The garbage collector, which would search millions of nodes again and again, sees none."""
    gc.disable()
    try:
        return tuple(_read(name) for name in files() if name.startswith(f"{folder}/") and name.endswith(".py"))
    finally:
        gc.freeze()
        gc.enable()


@cache
def _read(name: str) -> Source:
    text = (ROOT / name).read_text("utf-8")
    module = name.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return Source(name, module, text, ast.parse(text, name))


def drop_sources() -> None:
    """Release the parsed files, which take hundreds of megabytes; they are read again when a test asks for them."""
    sources.cache_clear()
    _read.cache_clear()


def door(module: str) -> str:
    """Return the layer of a module of the server: `wire`, `flows`, `store`, `model`, or another name of the package."""
    parts = module.split(".")
    name = parts[2] if len(parts) > 2 else ""
    return "wire" if name.startswith("wire") else name


def room(module: str) -> str:
    """Return the package of a module of the server, such as `ledger` for `ostiaryd.ledger.store`; empty for a module
    outside of the server.
    """
    parts = module.split(".")
    return parts[1] if parts[0] == "ostiaryd" and len(parts) > 1 else ""


def calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    """Yield every call of a function by its plain name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node
