"""Enforcement points as this benchmark uses them: four verbs, and the credentials that a thief may try on one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.contain.suites import Call, Output, Person, Tool

OTHER_PERSON = "session of another person"
FOREIGN = ("token of another session", OTHER_PERSON)
"""thefts of a whole session of another agent, its token and key included: of the same person, and of another one"""


@dataclass(frozen=True, slots=True)
class Question:
    """Something that a person is asked: about a call, or, at the start, about what the task may do."""

    id: str
    call: Call | None
    shows: Mapping[str, Any]
    """whatever else stands on the question; `hidden`: names of arguments that it does not show, `origins`: of each"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`question`: the call is asked about, and nothing has been allowed yet."""

    allowed: bool
    code: str = ""
    question: Question | None = None
    why: str = ""
    """for the developer: effect, kinds, origins and policies, never a word of the task"""


@dataclass(frozen=True, slots=True)
class Opened:
    """A task that was started; `questions` are asked before its first call."""

    session: Any
    questions: Sequence[Question] = field(default=())


class Product(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def thefts(self) -> Sequence[str]:
        """Ways to come by a credential that `stolen` knows."""
        ...

    def open(self, agent: str, purpose: str, tools: Sequence[Tool], person: Person) -> Opened: ...

    def decide(self, session: Any, call: Call) -> Verdict: ...

    def answer(self, session: Any, question: Question, *, yes: bool) -> Verdict:
        """Give the answer of the person; for a question about a call, return the verdict on it now."""
        ...

    def observe(self, session: Any, call: Call, output: Output) -> None:
        """Take in the output of an allowed call, before the agent reads it."""
        ...

    def close(self, session: Any) -> None: ...

    def learning(self, *, keep: bool = False) -> AbstractContextManager[None]:
        """Within it, what was learned of an agent in one session counts in the next; at its end it is forgotten, unless
        it is to be kept.
        """
        ...

    def stolen(self, how: str, session: Any, other: Any) -> Any:
        """A session as a thief has it: with a credential of `session`, or of the `other` one, come by in that way."""
        ...
