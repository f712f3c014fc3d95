"""A call that needs what no guard can run: decided as far as it goes here, and again with the answer."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any, Literal

from ostiary.decision import access
from ostiary.decision.access.elsewhere import Verdict
from ostiary.provenance.noticing import Session
from ostiary.provenance.origins import Memory

Word = Literal["permit", "forbid", "neither", "error"]


class Asking:
    """One call that needs what is said elsewhere: first it is decided as far as it goes here, then with the answer."""

    __slots__ = ("_policies", "at", "question", "verdict")

    def __init__(self, policies: access.Policies, at: int) -> None:
        self._policies, self.at = policies, at
        self.question: bytes | None = None
        """what is to be asked; None while nothing is"""
        self.verdict: Verdict | None = None

    @property
    def hash(self) -> str:
        return self._policies.hash

    @property
    def policies(self) -> Mapping[str, bool]:
        return self._policies.elsewhere

    def decide(
        self,
        principal: access.Principal,
        tool: str,
        arguments: Mapping[str, Any],
        facts: access.Facts,
        now: int,
        memory: Memory | None = None,
        approved: Container[str] = (),
        past: access.Past | None = None,
        session: Session | None = None,
    ) -> access.Decision | None:
        """The decision, as of when the call came but on what is alive `now`; None while an answer is needed.

        `approved`: as for `access.decide`.
        """
        if self.verdict is not None and (reason := access.dead(principal, facts, now)) is not None:
            return access.Decision(False, False, facts.policies.hash, (reason,))
        here = replace(facts, elsewhere=self._look_up if facts.policies is self._policies else self._swapped)
        decision = access.decide(
            principal, tool=tool, arguments=arguments, facts=here, now=self.at, memory=memory, approved=approved,
            past=past, session=session,
        )  # fmt: skip
        return None if self.question is not None and self.verdict is None else decision

    def _look_up(self, question: bytes) -> Verdict:
        if self.verdict is None:
            self.question = question
            return ()
        return self.verdict if question == self.question else ()

    def _swapped(self, _: bytes) -> Verdict:
        return access.failed(self.policies, "the policies were changed while it was asked; try again")

    @property
    def said(self) -> dict[str, Word]:
        """For the record: what each policy said, by its name."""
        return {one.policy: _word(one) for one in self.verdict or ()}


def _word(said: access.Said) -> Word:
    return "error" if said.error else "forbid" if said.forbids else "permit" if said.permits else "neither"
