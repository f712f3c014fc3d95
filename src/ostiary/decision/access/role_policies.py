"""Role policies: policies on the requests of a person to the administration API, on the clients that may act for the
person, and on the certificates of the person.

The scope of a role policy names its actions, `action == Ostiary::Action::"use_api"`, or `action in [..]` of these only.
A policy on all actions is therefore no role policy, and no role policy takes part in a decision about an agent.
"""

from __future__ import annotations

from ostiary.authorization.cedar.ir import PolicyIR
from ostiary.authorization.cedar.values import Uid

USE_API = Uid("Ostiary::Action", "use_api")
ANSWER = Uid("Ostiary::Action", "answer")
CONSENT = Uid("Ostiary::Action", "consent")
HOLD_CERTIFICATE = Uid("Ostiary::Action", "hold_certificate")
PERSON, ROLE, API_ROUTE = "Ostiary::Person", "Ostiary::Role", "Ostiary::ApiRoute"
ROLE_ACTIONS = frozenset({USE_API, ANSWER, CONSENT, HOLD_CERTIFICATE})


def is_role_policy(policy: PolicyIR) -> bool:
    """Return whether a policy is about the permissions of persons only."""
    named = {policy.action.equals} if policy.action.equals is not None else set(policy.action.within or ())
    return bool(named) and named <= ROLE_ACTIONS
