"""Playbooks: policies that choose the response to a finding about an agent.

The scope of a playbook names its response, `action == Action::"quarantine"`, or `action in [..]` of responses only. A
policy on all actions is therefore no playbook, and no playbook takes part in a decision.
"""

from __future__ import annotations

from ostiary.authorization.cedar.ir import PolicyIR
from ostiary.authorization.cedar.values import Uid

RESPONSES = ("alert", "step_up", "throttle", "narrow", "freeze", "quarantine", "revoke")
"""The responses, the mildest first."""
RESPONSE_ACTIONS = frozenset(Uid("Action", name) for name in RESPONSES)


def is_playbook(policy: PolicyIR) -> bool:
    """Return whether a policy is about responses only."""
    named = {policy.action.equals} if policy.action.equals is not None else set(policy.action.within or ())
    return bool(named) and named <= RESPONSE_ACTIONS
