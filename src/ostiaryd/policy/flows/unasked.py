"""Acts that need what is said elsewhere, of which nobody knows beforehand what that will be.

An act that comes to such a question and has no answer is a challenge (`Unasked`): it is undone, and comes again with
the answer, as of the same instant (`Answered`). What proved its caller is used up by then; whoever is not proved never
comes to a question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ostiary.decision.access import Policies
from ostiary.decision.access.elsewhere import Verdict
from ostiary.protocol.errors import Refused
from ostiaryd.ledger.flows import Act
from ostiaryd.policy.flows.answer import FRESH


class Unasked(Refused):
    """The policies must be asked this before the act can go on."""

    code = "unasked"
    is_challenge = True

    def __init__(self, message: str, *, policies: str = "", now: int = 0, question: bytes = b"") -> None:
        super().__init__(message)
        self.policies, self.now, self.question = policies, now, question


@dataclass(frozen=True, slots=True)
class Answered:
    """What was said so far, under these policies at that instant; once it `is_all`, what is missing is missing."""

    policies: str
    now: int
    verdicts: Mapping[bytes, Verdict]
    is_all: bool = False


class Answering:
    """The answers that an act has at hand. `at` is the instant that its questions are of."""

    def __init__(self, act: Act, policies: Policies) -> None:
        self._hash = policies.hash
        said = act.again if isinstance(act.again, Answered) else None
        if said is not None and said.policies == policies.hash and 0 <= act.now - said.now <= FRESH:
            self.at, self._verdicts = said.now, said.verdicts
        else:
            self.at, self._verdicts = act.now, {}
        self._is_all = said is not None and said.is_all
        self._missing: bytes | None = None

    def look_up(self, question: bytes) -> Verdict:
        found = self._verdicts.get(question)
        if found is None and not self._is_all:
            self._missing = question
        return found or ()

    def check(self) -> None:
        """Raises Unasked where an answer was missing."""
        if self._missing is not None:
            raise Unasked("policies must be asked first", policies=self._hash, now=self.at, question=self._missing)
