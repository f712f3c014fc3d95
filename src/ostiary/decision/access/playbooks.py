"""Policies that say what to do about an agent of which something was noticed: playbooks.

A playbook names what it does in its scope, `action == Action::"quarantine"` or `action in [..]` of such actions alone.
So what a policy says of whatever action stops nobody, and no playbook takes part in a decision.
"""

from __future__ import annotations

from ostiary.authorization.cedar.ir import PolicyIR
from ostiary.authorization.cedar.values import Uid

RESPONSES = ("alert", "step_up", "throttle", "narrow", "freeze", "quarantine", "revoke")
"""What can be done, the mildest first."""
RESPONSE_ACTIONS = frozenset(Uid("Action", name) for name in RESPONSES)


def is_playbook(policy: PolicyIR) -> bool:
    """Return whether a policy is about responses and nothing else."""
    named = {policy.action.equals} if policy.action.equals is not None else set(policy.action.within or ())
    return bool(named) and named <= RESPONSE_ACTIONS
