"""How strongly the holder of a token has proved itself, as `acr` and `amr`; and what a policy demands of it (RFC 9470).

    urn:ostiary:acr:secret      it knows a client secret, and the token is bound to no key
    urn:ostiary:acr:bearer      it holds a key that was registered for it, and the token is bound to no key
    urn:ostiary:acr:key         it holds a key that was registered for it
    urn:ostiary:acr:two-keys    it holds two: one signed the client assertion, the other the DPoP proof

    urn:ostiary:acr:person      a person has said yes to this, with a key of their own (CIBA)

Two proofs under one key are one factor. An agent cannot register a key for itself: whoever raises its assurance is an
administrator.

A policy that forbids unless more was proved says so in its annotations, so that who is denied hears what would help:

    @step_up("urn:ostiary:acr:two-keys")
    @max_age("300")
    forbid (principal, action == Action::"call", resource) when { .. } unless { context.acr == .. };

The annotations change no decision: what counts is the condition.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from ostiary.protocol.errors import Invalid

SECRET = "urn:ostiary:acr:secret"
BEARER = "urn:ostiary:acr:bearer"
KEY = "urn:ostiary:acr:key"
TWO_KEYS = "urn:ostiary:acr:two-keys"
PERSON = "urn:ostiary:acr:person"
ACRS = (KEY, TWO_KEYS, PERSON)
"""What a policy or a restriction can demand, the weakest first."""
UNBOUND = (SECRET, BEARER)
"""Of tokens that are bound to no key: they meet no demand."""
LEVELS = (*UNBOUND, *ACRS)
"""All that tokens say, the weakest first."""
AMRS = {
    SECRET: ["pwd"],
    BEARER: ["swk"],
    KEY: ["pop", "swk"],
    TWO_KEYS: ["mfa", "pop", "swk"],
    PERSON: ["mca", "pop", "swk"],
}
"""RFC 8176: possession was proved, of a key in software; more than one factor; more than one channel."""
MAX_AGE = 10**9
"""seconds"""
INSUFFICIENT = "insufficient_user_authentication"
"""The reason code: RFC 9470 section 3."""
_ACR = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")


class StepUp(NamedTuple):
    """What a token must say: one of these `acr_values`, whichever where there are none, and an `auth_time` that is at
    most `max_age` seconds ago, whenever where it is None.
    """

    acr_values: tuple[str, ...]
    max_age: int | None


NO_DEMAND = StepUp((), None)


def weaker(one: str, other: str) -> str:
    """The one of two that proves less. What is no level of ours proves nothing."""
    if one not in LEVELS or other not in LEVELS:
        return ""
    return min(one, other, key=LEVELS.index)


def parse_acr_values(text: str) -> tuple[str, ...]:
    """The words of `acr_values`, in order of preference, separated by one space each. Raises Invalid."""
    words = tuple(text.split(" ")) if text else ()
    if len(words) > 16 or not all(map(_ACR.fullmatch, words)):
        raise Invalid("`acr_values` are at most 16 words, separated by one space each")
    return words


def parse_max_age(text: str) -> int:
    """Whole seconds, 0 included. Raises Invalid."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= MAX_AGE):
        raise Invalid(f"`max_age` is a number of seconds from 0 to {MAX_AGE}")
    return int(text)


def read_annotations(annotations: Mapping[str, str]) -> StepUp | None:
    """What a policy demands; None where it demands nothing. Raises Invalid."""
    if "step_up" not in annotations and "max_age" not in annotations:
        return None
    max_age = parse_max_age(annotations["max_age"]) if "max_age" in annotations else None
    return StepUp(parse_acr_values(annotations.get("step_up", "")), max_age)


def joined(demands: list[StepUp]) -> StepUp | None:
    """What meets all of them: the values that each takes, and the shortest age; None where no value would."""
    taken = [demand.acr_values for demand in demands if demand.acr_values]
    values = tuple(value for value in taken[0] if all(value in others for others in taken)) if taken else ()
    if taken and not values:
        return None
    return StepUp(values, min((demand.max_age for demand in demands if demand.max_age is not None), default=None))
