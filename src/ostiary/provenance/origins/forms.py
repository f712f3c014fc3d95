"""Other forms of one identifier: parts in several arguments, or a path within a folder. Pure and bounded.

`octo/hello#12`, `ada@example.org` and `https://git.example/octo/hello/issues/12` are each one word of the person's. A
tool may take such a word in parts: `owner`, `repo`, `number`. The parts count only together, and only in the order in
which the tool's schema lists its arguments.

A path is a folder and a name within it. It is as trusted as the less trusted of the two, and at most as trusted as a
record: the person stated both, but not that they belong together. The folder in which a tool starts (`./`) is no part
of the name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from ostiary.provenance.origins.memory import Memory, Origin
from ostiary.provenance.origins.scribe import hashed
from ostiary.provenance.origins.words import MAX_APART, join_parts

MAX_SPLIT = 6
"""maximum number of arguments of a call that may be parts of one identifier"""
MAX_STEPS = 12
"""maximum number of names in a path"""
_HOMES = tuple(f"/{folder}/" for folder in ("home", "Users"))
"""folders in which systems keep the home folders of persons, each with the name of the person"""


def split_origins(memory: Memory, order: Mapping[str, int], named: Sequence[tuple[str, object]]) -> dict[str, Origin]:
    """Return the origins, by path, of arguments that together are one identifier from the person's words or own record
    (such as their mail address): `owner`, `repo` and `number` for `octo/hello#12`. `order`: the places of the
    arguments in the schema; `named`: the arguments that name recipients and objects.
    """
    listed = [
        (order[path], path, str(value))
        for path, value in named
        if path in order and (isinstance(value, str) or type(value) is int)
    ]
    if not 1 < len(listed) <= MAX_SPLIT or len({path for _, path, _ in listed}) < len(listed):
        return {}
    listed.sort()
    origins: dict[str, Origin] = {}
    for count in range(2, min(len(listed), MAX_APART) + 1):
        for chosen in combinations(listed, count):
            origin = memory.find(hashed(memory.key, join_parts([text for _, _, text in chosen])), least=Origin.OWN)
            if origin <= Origin.OWN:
                origins |= {path: min(origin, origins.get(path, Origin.NOWHERE)) for _, path, _ in chosen}
    return origins


def path_origin(text: str, of: Callable[[str], Origin]) -> Origin:
    """Return the origin of a path that the person did not state as a whole. `of` returns the origin of a name
    or a folder.
    """
    if any(step in ("", ".", "..") for step in text.removeprefix("./").removeprefix("/").split("/")):
        return Origin.NOWHERE
    if text.startswith("./"):
        return min(of(text[2:]), path_origin(text[2:], of))
    if home := _home(text, of):
        rest = text[len(home) :]
        exact = of(f"~/{rest}")
        if exact <= Origin.OWN:
            return exact
        return max(min(of(rest), _of_steps(rest, "", of), _of_steps(rest, "~/", of)), Origin.RECORD)
    start = "/" * text.startswith("/")
    return _of_steps(text.removeprefix("/"), start, of)


def _of_steps(text: str, start: str, of: Callable[[str], Origin]) -> Origin:
    """Return the origin of a path that consists of a folder and of names within it. `start`: the characters before the
    folder.
    """
    steps = text.split("/")
    if not 1 < len(steps) <= MAX_STEPS:
        return Origin.NOWHERE
    best = [Origin.NOWHERE] * (len(steps) + 1)
    for end in range(1, len(steps) + 1):
        for begin in range(end):
            group = of("/".join(steps[begin:end]) if begin else start + "/".join(steps[:end]))
            best[end] = min(best[end], max(best[begin], group) if begin else group)
    return max(best[-1], Origin.RECORD)


def is_within(text: str, of: Callable[[str], Origin]) -> bool:
    """Return whether a path leads into a folder that the person stated as a path."""
    steps = text.split("/")
    if not 2 < len(steps) <= MAX_STEPS or any(step in ("", ".", "..") for step in steps[1:]):
        return False
    home = _home(text, of)
    folders = ("/".join(steps[:end]) for end in range(2, len(steps)))
    return any(
        of(folder) is Origin.PERSON or (folder.startswith(home) and of(f"~/{folder[len(home) :]}") is Origin.PERSON)
        for folder in folders
    )


def _home(text: str, of: Callable[[str], Origin]) -> str:
    """Return the person's home folder at the beginning of a path, with its last slash; empty if there is none."""
    if text.startswith("~/"):
        return "~/"
    for homes in _HOMES:
        name = text.removeprefix(homes).partition("/")[0]
        if text.startswith(homes) and of(name) is Origin.OWN:
            return f"{homes}{name}/"
    return ""
