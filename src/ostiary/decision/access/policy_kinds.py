"""Playbooks and role policies: policies that take no part in a decision about an agent.

A playbook chooses the response to a finding about an agent. A role policy is about the requests of a person to the
administration API, the clients that may act for the person, and the certificates of the person. The scope of each names
its actions, `action == Action::"quarantine"`, or `action in [..]` of these only. A policy on all actions is therefore
neither.
"""

from __future__ import annotations

from ostiary.authorization.cedar.ir import PolicyIR
from ostiary.authorization.cedar.values import Uid

RESPONSES = ("alert", "step_up", "throttle", "narrow", "freeze", "quarantine", "revoke")
"""The responses, the mildest first."""
RESPONSE_ACTIONS = frozenset(Uid("Action", name) for name in RESPONSES)
USE_API = Uid("Ostiary::Action", "use_api")
ANSWER = Uid("Ostiary::Action", "answer")
CONSENT = Uid("Ostiary::Action", "consent")
HOLD_CERTIFICATE = Uid("Ostiary::Action", "hold_certificate")
PERSON, ROLE, API_ROUTE = "Ostiary::Person", "Ostiary::Role", "Ostiary::ApiRoute"
ROLE_ACTIONS = frozenset({USE_API, ANSWER, CONSENT, HOLD_CERTIFICATE})


def is_playbook(policy: PolicyIR) -> bool:
    """Return whether a policy is a playbook: its scope names only responses to findings as actions."""
    return _is_about(policy, RESPONSE_ACTIONS)


def is_role_policy(policy: PolicyIR) -> bool:
    """Return whether a policy is only about the permissions of persons, such as the use of routes of the admin API."""
    return _is_about(policy, ROLE_ACTIONS)


def _is_about(policy: PolicyIR, actions: frozenset[Uid]) -> bool:
    """Return whether the scope of a policy names actions, and only such as `actions` has."""
    named = {policy.action.equals} if policy.action.equals is not None else set(policy.action.within or ())
    return bool(named) and named <= actions
