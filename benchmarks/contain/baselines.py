"""Baselines: an allow-list of the suite's tools, and an oracle that knows which tools the task needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from benchmarks.contain.products import Opened, Question, Verdict
from benchmarks.contain.suites import Call, Output, Person, Tool


class Listed:
    """Allows the tools of a list: all of the suite, or by `needed` those that a purpose is known to need."""

    thefts: Sequence[str] = ()

    def __init__(self, name: str, needed: Mapping[str, frozenset[str]] | None = None) -> None:
        self.name, self._needed = name, needed

    def open(self, agent: str, purpose: str, tools: Sequence[Tool], person: Person) -> Opened:
        return Opened(frozenset(tool.name for tool in tools) if self._needed is None else self._needed[purpose])

    def decide(self, session: Any, call: Call) -> Verdict:
        return Verdict(call.tool in session, "" if call.tool in session else "not_listed")

    def answer(self, session: Any, question: Question, *, yes: bool) -> Verdict:
        raise NotImplementedError("it asks nothing")

    def observe(self, session: Any, call: Call, output: Output) -> None:
        pass

    def close(self, session: Any) -> None:
        pass

    def learning(self, *, keep: bool = False) -> AbstractContextManager[None]:
        return nullcontext()

    def stolen(self, how: str, session: Any, other: Any) -> Any:
        raise NotImplementedError("it knows no credentials")
