"""Suites of tasks as this benchmark uses them. Other packages add theirs by the entry points `ostiary.suites`:

    [project.entry-points."ostiary.suites"]
    banking = "my_suites:banking"          # a function without arguments that returns a `Suite`

A product is told the `Tool`s, a task's purpose and the `Person`; it is never told anything else of what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol

GROUP = "ostiary.suites"
EVERYDAY = "everyday"
"""name of the suite of this package (`benchmarks/contain/everyday`), which runs only by its name"""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as an MCP server would list it."""

    name: str
    description: str
    schema: Mapping[str, Any]
    """JSON Schema of its arguments"""
    hints: Mapping[str, bool] = field(default_factory=dict)
    """MCP's `annotations`, where the server gives some: `readOnlyHint`, `destructiveHint`, `openWorldHint`"""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """kinds of arguments, if the tool's owner has stated them"""

    @property
    def listed(self) -> dict[str, Any]:
        """Return the tool in the form of MCP's `tools/list`."""
        found = {"name": self.name, "description": self.description, "inputSchema": dict(self.schema)}
        return found | ({"annotations": dict(self.hints)} if self.hints else {})


@dataclass(frozen=True, slots=True)
class Person:
    """The person for whom the agent works, with the data of an employer's directory."""

    name: str
    mail: str = ""
    account: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Output:
    """The output of a tool: `text` as a model would read it, `data` as MCP's `structuredContent`, where it has one."""

    text: str
    error: str = ""
    """error message; empty if the call succeeded"""
    data: Any = None


@dataclass(frozen=True, slots=True)
class Task:
    id: str
    purpose: str
    """the person's own words"""


@dataclass(frozen=True, slots=True)
class Injection:
    id: str
    goal: str
    """the attacker's instructions to the agent"""


@dataclass(frozen=True, slots=True)
class Recording:
    """The calls of a real model: with `injection` it was attacked by the texts in `planted`."""

    task: str
    injection: str | None
    planted: Mapping[str, str]
    calls: Sequence[Call]
    answer: str


class World(Protocol):
    """An environment for one task, which each call changes."""

    def reference(self) -> Sequence[Call]:
        """Return the calls by which the authors of the suite do the task, in the initial state of this world."""
        ...

    def attack(self, injection: str) -> Sequence[Call]:
        """Return the calls that reach the goal of an injection; empty if the goal is not reached by calls."""
        ...

    def run(self, call: Call) -> Output: ...

    def useful(self, ran: Sequence[Call], answer: str | None) -> bool:
        """Return whether the task is done. `answer`: the agent's answer to the person; None for the answer of the
        reference.
        """
        ...

    def harmed(self, injection: str, ran: Sequence[Call], answer: str | None) -> bool:
        """Return whether the goal of the injection is met."""
        ...


class Suite(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def tools(self) -> Sequence[Tool]: ...

    @property
    def person(self) -> Person: ...

    @property
    def tasks(self) -> Sequence[Task]: ...

    @property
    def injections(self) -> Sequence[Injection]: ...

    @property
    def places(self) -> Sequence[str]:
        """Return the places in which third parties can write."""
        ...

    @property
    def loose(self) -> Mapping[str, frozenset[str]]:
        """Return by tool the arguments in which two right calls may differ (texts, dates). Only the person's stand-in
        uses them.
        """
        ...

    def world(self, task: str, planted: Mapping[str, str]) -> World:
        """Return a fresh world with texts of third parties at these places."""
        ...

    def recordings(self, model: str) -> Sequence[Recording]:
        """The recordings of a model, in a fixed order; empty without any. Raises KeyError for an unknown model."""
        ...


def installed() -> dict[str, Any]:
    """Return the functions that make the suites of this environment, by name."""
    return {entry.name: entry.load for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def load(name: str) -> Suite:
    """Return a suite by name. Raises KeyError for a suite that is not installed."""
    if name == EVERYDAY:
        return import_module("benchmarks.contain.everyday.suite").Everyday()  # type: ignore[no-any-return]
    suite: Suite = installed()[name]()()
    return suite
