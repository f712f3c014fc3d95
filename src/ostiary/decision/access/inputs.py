"""Inputs of one decision: the call, further knowledge about this call, and the needs that a decision yields.

    ResolvedCall      the call: caller, tool, arguments, facts and time
    DecisionInputs    inputs for this call only: memory of its task, history, approvals, verdicts of remote policies
    Steps             a decision that needs answers: a generator that yields each need and is sent the answer

A generator does no I/O. A driver answers its needs: the guard has a blocking and an asynchronous driver
(`ostiary.guard.drivers`), the server answers from its transaction (`ostiaryd.policy.flows.evaluator`).
"""

from __future__ import annotations

from collections.abc import Container, Generator, Mapping
from typing import Any, TypeVar

import msgspec

from ostiary.decision.access.facts import Facts, Principal, ReadyTool
from ostiary.decision.access.lazy_context import CallHistory
from ostiary.decision.access.policies import Policies
from ostiary.decision.access.remote_policies import RemoteSource, RemoteVerdict, fail_all
from ostiary.provenance.noticing import Session
from ostiary.provenance.origins import Memory, needs_origins

T = TypeVar("T")


class ResolvedCall(msgspec.Struct, frozen=True, gc=False):
    """A call of `tool` with JSON `arguments`, on the `facts` at `now` (microseconds since the epoch)."""

    principal: Principal
    tool: str
    arguments: Mapping[str, Any]
    facts: Facts
    now: int
    ready: ReadyTool | None
    """Tool of the catalogue; None for an unknown tool."""

    @property
    def reads_memory(self) -> bool:
        """Return whether the decision depends on the memory of the task."""
        ready = self.ready
        return bool(self.principal.claims.memory) and ready is not None and needs_origins(ready.tool, self.arguments)

    @property
    def reads_history(self) -> bool:
        """Return whether a policy reads earlier calls (`context.history`). False for an unknown tool, whose calls no
        policy decides.
        """
        return self.facts.policies.reads_history and self.ready is not None


def resolve(principal: Principal, tool: str, arguments: Mapping[str, Any], facts: Facts, now: int) -> ResolvedCall:
    """Return the call with the catalogue entry of the tool `tool` (None if the catalogue has no such tool)."""
    return ResolvedCall(principal, tool, arguments, facts, now, facts.resource.tools.get(tool))


class RemoteAnswers:
    """Verdicts of the remote policies of one set on the questions of a decision at the time `at` (microseconds).

    A question without an answer is added to `missing`, and gets the empty verdict, with which every remote policy
    fails.
    """

    __slots__ = ("at", "missing", "policies", "verdicts")

    def __init__(self, policies: Policies, at: int, verdicts: Mapping[bytes, RemoteVerdict] | None = None) -> None:
        self.policies, self.at = policies, at
        self.verdicts: dict[bytes, RemoteVerdict] = dict(verdicts or {})
        self.missing: dict[bytes, None] = {}
        """Questions without an answer, in order."""

    def look_up(self, question: bytes) -> RemoteVerdict:
        """Return the verdict on `question`; the empty verdict if there is no answer, and add the question to
        `missing`.
        """
        if (verdict := self.verdicts.get(question)) is None:
            self.missing[question] = None
            return ()
        return verdict

    def add(self, question: bytes, verdict: RemoteVerdict) -> None:
        """Store the verdict on a question in `missing`, and remove the question from `missing`."""
        self.verdicts[question] = verdict
        self.missing.pop(question, None)

    def source_for(self, policies: Policies) -> RemoteSource:
        """Return the function that answers the questions of the policy set `policies` to its remote policies. If the
        stored answers belong to another policy set, the function returns a verdict in which each remote policy fails.
        """
        return self.look_up if policies is self.policies else self._outdated

    def _outdated(self, _: bytes) -> RemoteVerdict:
        return fail_all(self.policies.remote, "the policy set changed while remote policies were asked; try again")


class DecisionInputs(msgspec.Struct, frozen=True, gc=False):
    """The inputs that belong to one call. If `memory` or `past` is None, a call whose decision needs it is denied."""

    memory: Memory | None = None
    """The memory of the task."""
    past: CallHistory | None = None
    """The history before the call."""
    session: Session | None = None
    """Untrusted texts that the task has read, for detectors; None: no detectors examine the call."""
    approved: Container[str] = ()
    """Ids of the policies that require an approval, for which this call has spent one."""
    remote: RemoteAnswers | None = None
    """Answers of remote policies; None: remote policies cannot be asked, and count as failed."""


NO_INPUTS = DecisionInputs()


class TaskMemory(msgspec.Struct, frozen=True, gc=False):
    """The need for the present memory of the call's task. The answer is a `Memory`; None if it is not available."""


class History(msgspec.Struct, frozen=True, gc=False):
    """The need for the history before the call. The answer is a `PriorHistory`; None if it is not available."""


class RemotePolicies(msgspec.Struct, frozen=True, gc=False):
    """The need for the verdict of a set's remote policies on a question. The answer is a `RemoteVerdict`; None
    if they cannot be asked.
    """

    policies: Policies
    question: bytes
    at: int
    """Time of the question, in microseconds."""


Need = TaskMemory | History | RemotePolicies
Steps = Generator[Any, Any, T]
"""A decision that yields its needs, is sent the answers, and returns its outcome."""
