"""Assurance: the strength of the authentication of a token's holder (`acr` and `amr`), and the requirements of policies
(RFC 9470).

    urn:ostiary:acr:secret      a client secret; the token is bound to no key
    urn:ostiary:acr:bearer      a registered key; the token is bound to no key
    urn:ostiary:acr:key         a registered key
    urn:ostiary:acr:two-keys    two registered keys: one signed the client assertion, the other the DPoP proof

    urn:ostiary:acr:person      a person approved the request, with a key of their own (CIBA)

    urn:ostiary:acr:person:single   a person signed in with one factor: a password, a code, an identity provider
    urn:ostiary:acr:person:mfa      a person signed in with two independent factors
    urn:ostiary:acr:person:phr      the same, and one factor resists phishing: a passkey

Two proofs with one key or by one issuer count as one factor. An agent cannot register a key for itself; only an
administrator can raise the assurance of an agent.

A policy that requires more assurance has annotations, so that a denial names the required level:

    @step_up("urn:ostiary:acr:two-keys")
    @max_age("300")
    forbid (principal, action == Action::"call", resource) when { .. } unless { context.acr == .. };

The annotations never change a decision; only the condition of the policy does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from ostiary.protocol.errors import Invalid

SECRET = "urn:ostiary:acr:secret"
BEARER = "urn:ostiary:acr:bearer"
KEY = "urn:ostiary:acr:key"
TWO_KEYS = "urn:ostiary:acr:two-keys"
PERSON = "urn:ostiary:acr:person"
PERSON_SINGLE = "urn:ostiary:acr:person:single"
PERSON_MFA = "urn:ostiary:acr:person:mfa"
PERSON_PHR = "urn:ostiary:acr:person:phr"
AMRS = {
    SECRET: ["pwd"],
    BEARER: ["swk"],
    KEY: ["pop", "swk"],
    TWO_KEYS: ["mfa", "pop", "swk"],
    PERSON_SINGLE: [],
    PERSON: ["mca", "pop", "swk"],
    PERSON_MFA: ["mfa"],
    PERSON_PHR: ["mfa", "pop", "user"],
}
"""Every level, the weakest first, with its authentication methods (`amr`, RFC 8176): `pop` and `swk` prove possession
of a key in software, `mfa` more than one factor, `mca` more than one channel, `user` presence. A person's session adds
its own methods.
"""
LEVELS = tuple(AMRS)
"""Levels of tokens, the weakest first."""
UNBOUND = (SECRET, BEARER)
"""Levels of tokens that are not bound to a key. They satisfy no requirement."""
ACRS = tuple(level for level in LEVELS if level not in UNBOUND)
"""Levels that a policy can require, the weakest first."""
PERSON_LEVELS = tuple(level for level in LEVELS if level.startswith(f"{PERSON}:"))
"""Levels of a person's session, the weakest first."""
STEPS = (KEY, TWO_KEYS, PERSON)
"""Levels that a restriction can require. Databases and messages store their index, so the order must never change."""
MAX_AGE = 10**9
"""Maximum value of `max_age`, in seconds."""
INSUFFICIENT = "insufficient_user_authentication"
"""Reason code for a token that does not meet a requirement (RFC 9470 section 3)."""
_ACR = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")


class StepUp(NamedTuple):
    """A requirement on a token: one of the levels `acr_values` (any level if empty), and authentication (`auth_time`)
    at most `max_age` seconds ago (at any time if None).
    """

    acr_values: tuple[str, ...]
    max_age: int | None


NO_DEMAND = StepUp((), None)


def weaker(one: str, other: str) -> str:
    """Return the weaker of two levels (`acr`). An unknown level counts as the weakest; then the result is the empty
    string.
    """
    if one not in LEVELS or other not in LEVELS:
        return ""
    return min(one, other, key=LEVELS.index)


def meets(acr: str, acr_values: Collection[str]) -> bool:
    """Return whether the level `acr` meets a requirement: `acr_values` is empty, or contains this level. A level of a
    person's session also meets a requirement that lists a weaker level of sessions.
    """
    reached = PERSON_LEVELS[: PERSON_LEVELS.index(acr) + 1] if acr in PERSON_LEVELS else ()
    return not acr_values or acr in acr_values or any(value in reached for value in acr_values)


def levels_from(step: int) -> tuple[str, ...]:
    """Return the levels (`acr`) that meet a restriction which requires the level STEPS[step] or a stronger level;
    empty for an unknown index.
    """
    return ACRS[ACRS.index(STEPS[step]) :] if step < len(STEPS) else ()


def parse_acr_values(text: str) -> tuple[str, ...]:
    """Return the words of `acr_values`, in order of preference, separated by single spaces. Raises Invalid for too many
    words, or other characters.
    """
    words = tuple(text.split(" ")) if text else ()
    if len(words) > 16 or not all(map(_ACR.fullmatch, words)):
        raise Invalid(
            "`acr_values` must have at most 16 words, separated by one space each, of 1 to 256 visible ASCII characters"
            " other than quotes and backslashes"
        )
    return words


def parse_max_age(text: str) -> int:
    """Return `max_age` in whole seconds, from 0 to MAX_AGE. Raises Invalid for any other value."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= MAX_AGE):
        raise Invalid(f"`max_age` must be a whole number of seconds from 0 to {MAX_AGE}")
    return int(text)


def read_annotations(annotations: Mapping[str, str]) -> StepUp | None:
    """Return the step-up that the annotations `@step_up` (levels) and `@max_age` of a policy require; None if the
    policy has neither. Raises Invalid for malformed annotations.
    """
    if "step_up" not in annotations and "max_age" not in annotations:
        return None
    max_age = parse_max_age(annotations["max_age"]) if "max_age" in annotations else None
    return StepUp(parse_acr_values(annotations.get("step_up", "")), max_age)


def join_demands(demands: list[StepUp]) -> StepUp | None:
    """Return one requirement that a token meets only if it meets all of `demands`: the common levels and the lowest
    maximum age. None if the demands that name levels have no level in common.
    """
    accepted = [demand.acr_values for demand in demands if demand.acr_values]
    values = tuple(value for value in accepted[0] if all(value in others for others in accepted)) if accepted else ()
    if accepted and not values:
        return None
    return StepUp(values, min((demand.max_age for demand in demands if demand.max_age is not None), default=None))
