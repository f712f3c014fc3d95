"""The interface of a measured product: four functions, and the stolen credentials that a thief can try."""

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
    """A question to a person: about a call, or, at the start of a task, about its plan."""

    id: str
    call: Call | None
    shows: Mapping[str, Any]
    """other content of the question. `hidden`: names of arguments that the question does not show; `origins`: the
    origin of each argument
    """


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a call. `question`: the question that a person must answer before the call can be allowed; None
    without one.
    """

    allowed: bool
    code: str = ""
    question: Question | None = None
    why: str = ""
    """remark for the developer: effect, kinds, origins and policies, never a word of the task"""


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
        """The names of the thefts that `stolen` supports."""
        ...

    def open(self, agent: str, purpose: str, tools: Sequence[Tool], person: Person) -> Opened: ...

    def decide(self, session: Any, call: Call) -> Verdict: ...

    def answer(self, session: Any, question: Question, *, yes: bool) -> Verdict:
        """Give the answer of the person; for a question about a call, return the verdict on it now."""
        ...

    def observe(self, session: Any, call: Call, output: Output) -> None:
        """Receive the output of an allowed call, before the agent reads the output."""
        ...

    def close(self, session: Any) -> None: ...

    def learning(self, *, keep: bool = False) -> AbstractContextManager[None]:
        """Return a context in which the knowledge of an agent from one session counts in the next session. At the end
        of the context, the knowledge is deleted unless `keep` is true.
        """
        ...

    def stolen(self, how: str, session: Any, other: Any) -> Any:
        """Return a session of a thief with a credential of `session` or of `other`, stolen in the way `how`."""
        ...
