"""Playbooks: the policies of a set that choose the responses to a finding about an agent. They decide on each possible
response separately.

If a playbook fails, it chooses no response, and the failure is reported. Otherwise a mistake in a policy could stop all
agents of a company. The response of a playbook in watch mode is reported, and not carried out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from ostiary.authorization.cedar import ir
from ostiary.authorization.cedar.compile import Compiled, Verdict, compile_set
from ostiary.authorization.cedar.values import Entities, Entity, Record, Uid, entity
from ostiary.decision.access.policy_kinds import RESPONSE_ACTIONS, RESPONSES, is_playbook
from ostiary.protocol.errors import Invalid

LONGEST_MINUTES = 7 * 24 * 60
MAX_CALLS = 10_000
_NUMBER = re.compile(r"[0-9]{1,5}")


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """An automatic response (such as to throttle an agent) that the playbooks of a policy set choose for a finding.
    `policies`: the ids of these playbooks.

    `is_watched`: the playbooks are in watch mode, so the response is only recorded. `minutes`: the duration, the
    greatest that a playbook states; `calls`: the limit of a throttled agent, the smallest that a playbook states.
    """

    response: str
    policies: tuple[str, ...]
    minutes: int = 60
    calls: int = 10
    is_watched: bool = False


class Playbooks:
    """The playbooks of a policy set: Cedar policies that choose responses to findings. The object never changes."""

    def __init__(self, policies: ir.PolicySetIR, entities: Mapping[Uid, Entity]) -> None:
        """Compile the playbooks among the policies of a set. Raises Invalid for a wrong annotation of a playbook."""
        playbooks = [_checked(policy) for policy in policies.policies if is_playbook(policy)]
        self.is_empty = not playbooks
        self._annotations = {policy.id: policy.annotations for policy in playbooks}
        self._enforced = _compiled(policy for policy in playbooks if "mode" not in policy.annotations)
        self._watched = _compiled(policy for policy in playbooks if "mode" in policy.annotations)
        self.known = {uid: entity(uid) for uid in RESPONSE_ACTIONS} | dict(entities)

    def decide(self, response: str, agent: Uid, context: Record, entities: Entities) -> Verdict:
        """Return the verdict of the enforced playbooks (those not in watch mode) on one response to a finding about
        `agent`.
        """
        return self._enforced.decide(agent, Uid("Action", response), agent, context, entities)

    def propose(self, agent: Uid, context: Record, entities: Entities) -> tuple[list[Proposal], list[tuple[str, str]]]:
        """Return the responses that the playbooks choose for a finding about `agent`, the mildest first, and (policy
        id, error message) of each playbook that failed.
        """
        proposals: list[Proposal] = []
        errors: dict[str, str] = {}
        for response in RESPONSES:
            for is_watched, compiled in ((False, self._enforced), (True, self._watched)):
                verdict = compiled.decide(agent, Uid("Action", response), agent, context, entities)
                errors |= dict(verdict.errors)
                if is_said(verdict):
                    proposals.append(self._proposal(response, verdict.reasons, is_watched=is_watched))
        return proposals, sorted(errors.items())

    def _proposal(self, response: str, policies: tuple[str, ...], *, is_watched: bool) -> Proposal:
        annotations = [self._annotations[policy] for policy in policies]
        return Proposal(
            response=response,
            policies=policies,
            minutes=max((int(one["minutes"]) for one in annotations if "minutes" in one), default=60),
            calls=min((int(one["calls"]) for one in annotations if "calls" in one), default=10),
            is_watched=is_watched,
        )


def is_said(verdict: Verdict) -> bool:
    """Return whether the verdict of playbooks on a response chooses that response: a permit applies, no forbid applies,
    and no forbid has failed.
    """
    return verdict.allowed and not verdict.forbid_errors


def _compiled(policies: Iterable[ir.PolicyIR]) -> Compiled:
    return compile_set(ir.PolicySetIR(tuple(policies)))


def _checked(policy: ir.PolicyIR) -> ir.PolicyIR:
    """Return a playbook after checking its annotations. Raises Invalid for a wrong one."""
    name, annotations = policy.id, policy.annotations
    if wrong := sorted(annotations.keys() & {"ask", "step_up", "max_age"}):
        raise Invalid(
            f"playbook {name!a}: @{wrong[0]} is an annotation for decisions on requests, not for playbooks",
            hint="remove the annotation: a playbook permits or forbids a response",
        )
    for annotation, most in (("minutes", LONGEST_MINUTES), ("calls", MAX_CALLS)):
        text = annotations.get(annotation)
        if text is not None and not (_NUMBER.fullmatch(text) and 1 <= int(text) <= most):
            raise Invalid(f"playbook {name!a}: @{annotation} is not a whole number from 1 to {most}")
    return policy
