"""The reasons of a denial in words, with hints."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ostiary.authorization.assurance import INSUFFICIENT, StepUp
from ostiary.decision.access.policies import Judgement, Needs, Policies


class Reason(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The reason of a denial: a stable code, a message, a hint. It quotes no value of an argument.

    With the code `insufficient_user_authentication`, the demand on the token (RFC 9470 section 3): one of `acr_values`,
    and an `auth_time` at most `max_age` seconds ago.
    """

    code: str
    message: str = ""
    hint: str = ""
    acr_values: str = ""
    max_age: int | None = None


def asks_of(judgement: Judgement, policies: Policies) -> Needs | None:
    """Return how many persons must approve the call (`person`: one; `two`: two) if the call lacks only approvals;
    otherwise None.
    """
    if judgement.because != "approval_needed":
        return None
    return needs_of(judgement.policies, policies)


def needs_of(asking: Iterable[str], policies: Policies) -> Needs:
    """Return how many persons must approve a call that the policies `asking` (with `@ask`) forbid: `two` if one of
    these policies needs two persons, otherwise `person`.
    """
    return "two" if any(policies.asks[policy] == "two" for policy in asking) else "person"


_WHOM: dict[Needs, str] = {"person": "a person", "two": "two people"}


def reasons_of(judgement: Judgement, policies: Policies) -> tuple[Reason, ...]:
    """Return the reasons of a denial, each with a code, a message and a hint. If the policy that forbids has the
    annotation `@reason` or `@hint`, the text of the annotation is used.
    """
    suffix = f" (for agent {judgement.of} of the delegation chain)" if judgement.of else ""
    match judgement.because:
        case "":
            return ()
        case "no_permit":
            return (Reason("no_permit", f"no policy permits the request{suffix}"),)
        case "policy_error":
            failed = dict(judgement.errors)
            return tuple(
                Reason("policy_error", f"policy `{name}`: {failed[name]}{suffix}") for name in judgement.policies
            )
        case "approval_needed":
            return tuple(
                Reason(
                    "approval_needed",
                    policies.reasons.get(name) or f"policy `{name}` asks {_WHOM[policies.asks[name]]}",
                    policies.hints.get(name, ""),
                )
                for name in judgement.policies
            )
        case "forbidden_by_policy":
            if (demand := policies.step_up(judgement.policies)) is not None:
                return (_insufficient(demand, judgement, policies),)
            messages = dict(judgement.messages)
            return tuple(
                Reason(
                    "forbidden_by_policy",
                    (messages.get(name) or policies.reasons.get(name) or f"policy `{name}` forbids the request")
                    + suffix,
                    policies.hints.get(name, ""),
                )
                for name in judgement.policies
            )


def _insufficient(demand: StepUp, judgement: Judgement, policies: Policies) -> Reason:
    """Return the reason for denying a token whose level of authentication is too weak, or whose authentication is too
    old.
    """
    values = " ".join(demand.acr_values)
    needed = [f"a token with `acr` {' or '.join(demand.acr_values)}"] if values else []
    needed += [] if demand.max_age is None else [f"whose holder authenticated within the last {demand.max_age} s"]
    message = next(
        filter(None, map(policies.reasons.get, judgement.policies)), "the required level is " + " ".join(needed)
    )
    hint = next(filter(None, map(policies.hints.get, judgement.policies)), "get a token with these `acr_values`")
    return Reason(INSUFFICIENT, message, hint, values, demand.max_age)
