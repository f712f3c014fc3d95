"""Retry of an act with the verdicts of remote policies that were not asked before the act.

An act never waits for the network. An act that lacks a verdict is undone like a challenge (`RemotePoliciesNeeded`). Its
caller asks for the verdict (`ostiaryd.policy.flows.external_pdp`) and runs the act again; the verdicts are for the time
of the first run (`Retry`). By then the caller's proof is marked as used, so only authenticated callers cause such
questions. The further run checks that the caller was not stopped meanwhile (`Call.check_again`).
"""

from __future__ import annotations

from dataclasses import dataclass

from ostiary.decision.access import Policies, RemoteAnswers
from ostiary.protocol.errors import Refused
from ostiaryd.ledger.flows import Act

FRESH = 10_000_000
"""Maximum age of a remote verdict, in microseconds."""


class RemotePoliciesNeeded(Refused):
    """The remote policies must answer the `missing` questions of `remote` before the act can run."""

    code = "unasked"
    is_challenge = True

    def __init__(self, message: str, *, remote: RemoteAnswers) -> None:
        super().__init__(message)
        self.remote = remote


@dataclass(frozen=True, slots=True)
class Retry:
    """The verdicts for a further run of an act. `is_last`: the act will not run again, so policies without a verdict
    fail.
    """

    remote: RemoteAnswers
    is_last: bool = False


def fresh_answers(remote: RemoteAnswers | None, policies: Policies, *, now: int) -> RemoteAnswers | None:
    """Return the verdicts if they can be used under `policies` at `now` (microseconds). Return None if they belong to
    another set, are older than FRESH, or are from a time after `now`.
    """
    if remote is None or remote.policies.hash != policies.hash or not 0 <= now - remote.at <= FRESH:
        return None
    return remote if remote.policies is policies else RemoteAnswers(policies, remote.at, remote.verdicts)


def answers_of(act: Act, policies: Policies) -> RemoteAnswers:
    """Return the verdicts of remote policies with which this run of the act was started, for use under `policies`;
    empty verdicts in the first run.
    """
    remote = act.again.remote if isinstance(act.again, Retry) else None
    fresh = fresh_answers(remote, policies, now=act.now)
    return RemoteAnswers(policies, act.now) if fresh is None else RemoteAnswers(policies, fresh.at, fresh.verdicts)


def check_answered(act: Act, remote: RemoteAnswers) -> None:
    """Raise RemotePoliciesNeeded if a verdict was missing, unless this is the last run of the act."""
    if remote.missing and not (isinstance(act.again, Retry) and act.again.is_last):
        raise RemotePoliciesNeeded("remote policies must be asked first", remote=remote)
