"""The catalogue of a suite: the default reading of what its server lists, as it is or as its owner confirms it.

The stand-in for the owner knows what the tools are: what the reading says of the suite under its own names, also where
a strange world has renamed all that. Each effect and each kind of an argument is one answer; The share `wrong` of these
answers is wrong.
"""

from __future__ import annotations

import random

from msgspec.structs import replace

from benchmarks.contain.strange import Strange
from benchmarks.contain.suites import Suite
from ostiary.authorization.catalogue import Catalogue, Effect, Tool
from ostiary.authorization.catalogue.kind import KINDS
from ostiary.catalogue_advisor.reading import propose_catalogue
from ostiary.catalogue_advisor.review import confirm

NAME = "suite"


def reading(suite: Suite) -> Catalogue:
    """Return the default reading of what the server of the suite lists."""
    return propose_catalogue(NAME, {"tools": [tool.listed for tool in suite.tools]}).catalogue


def readers(suite: Suite) -> list[str]:
    """Return the tools that only read, by the suite's own names."""
    return [name for name, tool in reading(suite).tools.items() if tool.effect is Effect.READ]


def known_tools(suite: Suite) -> dict[str, Tool]:
    """Return the tools of a suite as their owner knows them: each suggestion of a review under their own names."""
    return {name: confirm(tool) for name, tool in reading(suite).tools.items()}


def confirmed(suite: Suite, *, wrong: float = 0.0, seed: int = 0) -> Catalogue:
    """Return the catalogue as its owner confirms it; `wrong`: the share of answers that are wrong, drawn by `seed`."""
    found = reading(suite)
    if isinstance(suite, Strange):
        answers = {
            suite.tool_names[name]: (tool, suite.strange_kinds(name, tool.kinds))
            for name, tool in known_tools(suite.suite).items()
        }
    else:
        answers = {name: (tool, tool.kinds) for name, tool in known_tools(suite).items()}
    declared = {tool.name: tool.kinds for tool in suite.tools}
    draw = random.Random(f"owner {suite.name} {seed}")
    tools = dict[str, Tool]()
    for name, tool in found.tools.items():
        known, kinds = answers[name][0], {**answers[name][1], **declared.get(name, {})}
        effect = draw.choice(tuple(Effect)) if draw.random() < wrong else known.effect
        said = {
            path: draw.choice(sorted(KINDS)) if draw.random() < wrong else word for path, word in sorted(kinds.items())
        }
        tools[name] = replace(
            tool, effect=effect, kinds=said, open_world=known.open_world, outside=known.outside, confirmed=True
        )
    return Catalogue.of(NAME, list(tools.values()), found.data_classes)
