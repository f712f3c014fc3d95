"""Verdicts of remote policies that an act needs, and that could not be asked for ahead of the act.

A flow never waits for the network. An act without a needed verdict is undone like a challenge (`RemotePoliciesNeeded`).
Its caller asks for the verdict (`ostiaryd.policy.flows.external_pdp`) and runs the act again; the verdicts hold for the
instant of the first run (`Retry`). The proof of the caller is used up by then; a caller without a proof never gets to a
question.
"""

from __future__ import annotations

from dataclasses import dataclass

from ostiary.decision.access import Policies, RemoteAnswers
from ostiary.protocol.errors import Refused
from ostiaryd.ledger.flows import Act

FRESH = 10_000_000
"""Maximum age of a remote verdict, in microseconds."""


class RemotePoliciesNeeded(Refused):
    """The remote policies must evaluate the `missing` requests of `remote` before the act can continue."""

    code = "unasked"
    is_challenge = True

    def __init__(self, message: str, *, remote: RemoteAnswers) -> None:
        super().__init__(message)
        self.remote = remote


@dataclass(frozen=True, slots=True)
class Retry:
    """The state for a second run of an act. `is_last`: a missing verdict stays missing, and its policies fail."""

    remote: RemoteAnswers
    is_last: bool = False


def fresh_answers(remote: RemoteAnswers | None, policies: Policies, *, now: int) -> RemoteAnswers | None:
    """Return the answers for use under `policies` at `now`; None if they are of another set, too old, or of later."""
    if remote is None or remote.policies.hash != policies.hash or not 0 <= now - remote.at <= FRESH:
        return None
    return remote if remote.policies is policies else RemoteAnswers(policies, remote.at, remote.verdicts)


def answers_of(act: Act, policies: Policies) -> RemoteAnswers:
    """Return the verdicts that the act has at hand under `policies`."""
    remote = act.again.remote if isinstance(act.again, Retry) else None
    fresh = fresh_answers(remote, policies, now=act.now)
    return RemoteAnswers(policies, act.now) if fresh is None else RemoteAnswers(policies, fresh.at, fresh.verdicts)


def check_answered(act: Act, remote: RemoteAnswers) -> None:
    """Raise RemotePoliciesNeeded if a verdict was missing that can still be asked for."""
    if remote.missing and not (isinstance(act.again, Retry) and act.again.is_last):
        raise RemotePoliciesNeeded("remote policies must be asked first", remote=remote)
