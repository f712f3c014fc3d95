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
    """Raised in an act if verdicts of Rego or OPA policies are missing: those on the `missing` questions of `remote`.
    Obtain the verdicts, then run the act again with them.
    """

    code = "unasked"
    is_challenge = True

    def __init__(self, message: str, *, remote: RemoteAnswers) -> None:
        super().__init__(message)
        self.remote = remote


@dataclass(frozen=True, slots=True)
class Retry:
    """The verdicts with which an act is run again. `is_last`: this is the last run of the act, so a policy without a
    verdict counts as failed.
    """

    remote: RemoteAnswers
    is_last: bool = False


def fresh_answers(remote: RemoteAnswers | None, policies: Policies, *, now: int) -> RemoteAnswers | None:
    """Return the verdicts of Rego and OPA policies if they can be used under `policies` at `now` (microseconds): they
    are of this set, and obtained at most FRESH before `now`. Otherwise return None.
    """
    if remote is None or remote.policies.hash != policies.hash or not 0 <= now - remote.at <= FRESH:
        return None
    return remote if remote.policies is policies else RemoteAnswers(policies, remote.at, remote.verdicts)


def answers_of(act: Act, policies: Policies) -> RemoteAnswers:
    """Return the verdicts of Rego and OPA policies with which this run of the act was started, if they can still be
    used under `policies`; otherwise, and in the first run, no verdicts.
    """
    remote = act.again.remote if isinstance(act.again, Retry) else None
    fresh = fresh_answers(remote, policies, now=act.now)
    return RemoteAnswers(policies, act.now) if fresh is None else RemoteAnswers(policies, fresh.at, fresh.verdicts)


def check_answered(act: Act, remote: RemoteAnswers) -> None:
    """Check that no verdict of a Rego or OPA policy was missing in `remote`. Raises RemotePoliciesNeeded otherwise,
    except in the last run of the act.
    """
    if remote.missing and not (isinstance(act.again, Retry) and act.again.is_last):
        raise RemotePoliciesNeeded("verdicts of policies in Rego or OPA are missing", remote=remote)
