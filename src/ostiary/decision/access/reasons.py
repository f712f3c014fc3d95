"""Reasons of a denial in words, with hints."""

from __future__ import annotations

import msgspec

from ostiary.authorization.assurance import INSUFFICIENT, StepUp
from ostiary.decision.access.policies import Judgement, Needs, Policies


class Reason(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The reason of a denial: a stable code, a message, a hint. Quotes no argument's value.

    With the code `insufficient_user_authentication`, the demand on the token (RFC 9470 section 3): one of `acr_values`,
    and an `auth_time` that is at most `max_age` seconds ago.
    """

    code: str
    message: str = ""
    hint: str = ""
    acr_values: str = ""
    max_age: int | None = None


def asks_of(judged: Judgement, policies: Policies) -> Needs | None:
    """Return the number of approvals, if they are all that is missing."""
    if judged.because != "approval_needed":
        return None
    return "two" if any(policies.asks[policy] == "two" for policy in judged.policies) else "person"


_WHOM: dict[Needs, str] = {"person": "a person", "two": "two people"}


def reasons_of(judged: Judgement, policies: Policies) -> tuple[Reason, ...]:
    """Return the reasons in words; a policy's own `@reason` and `@hint` take precedence."""
    whose = f" (for {judged.of}, through which it comes)" if judged.of else ""
    match judged.because:
        case "":
            return ()
        case "no_permit":
            return (Reason("no_permit", f"no policy permits it{whose}"),)
        case "policy_error":
            failed = dict(judged.errors)
            return tuple(Reason("policy_error", f"policy `{name}`: {failed[name]}{whose}") for name in judged.policies)
        case "approval_needed":
            return tuple(
                Reason(
                    "approval_needed",
                    policies.reasons.get(name) or f"policy `{name}` asks {_WHOM[policies.asks[name]]}",
                    policies.hints.get(name, ""),
                )
                for name in judged.policies
            )
        case "forbidden_by_policy":
            if (demand := policies.step_up(judged.policies)) is not None:
                return (_insufficient(demand, judged, policies),)
            said = dict(judged.said)
            return tuple(
                Reason(
                    "forbidden_by_policy",
                    (said.get(name) or policies.reasons.get(name) or f"policy `{name}` forbids it") + whose,
                    policies.hints.get(name, ""),
                )
                for name in judged.policies
            )


def _insufficient(demand: StepUp, judged: Judgement, policies: Policies) -> Reason:
    """Return the reason of an assurance that is too weak or too old."""
    values = " ".join(demand.acr_values)
    needed = [f"a token with `acr` {' or '.join(demand.acr_values)}"] if values else []
    needed += [] if demand.max_age is None else [f"whose holder proved itself within {demand.max_age} s"]
    message = next(filter(None, map(policies.reasons.get, judged.policies)), "it takes " + " ".join(needed))
    hint = next(filter(None, map(policies.hints.get, judged.policies)), "get a token with these `acr_values`")
    return Reason(INSUFFICIENT, message, hint, values, demand.max_age)
