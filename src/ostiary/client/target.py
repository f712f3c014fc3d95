"""The target of a token, an issued token, and the errors if no token is issued."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from ostiary.authorization.assurance import INSUFFICIENT
from ostiary.protocol import jose
from ostiary.protocol.errors import Forbidden, Invalid

STEP_UP = f'error="{INSUFFICIENT}"'
"""the challenge parameter that demands a step-up (RFC 9470 section 3)"""


@dataclass(frozen=True, slots=True)
class Target:
    """The requested properties of a token: resource identifier, scopes, and task (None: the standing task).

    With a `subject`, which is a token of another agent for this agent, the token is obtained by exchange (RFC 8693),
    and belongs to the task of the subject. With `acr_values` (alternatives, separated by spaces) or `max_age`
    (seconds), the client authenticates again, with two keys if it has a second key, and the token states this (RFC
    9470 section 4). Raises Invalid if the resource, the scope, the task or the subject is empty: the issuer would read
    this as no limit.
    """

    resource: str | None = None
    scope: str | None = None
    task: str | None = None
    subject: str | None = field(default=None, repr=False)
    acr_values: str | None = None
    max_age: int | None = None

    def __post_init__(self) -> None:
        if "" in (self.resource, self.scope, self.task, self.subject):
            raise Invalid(
                "a token is requested for an empty `resource`, `scope`, `task` or `subject`",
                hint="leave the argument out, or name what the token is for",
            )

    @property
    def steps_up(self) -> bool:
        """Return whether the target demands a step-up: it has `acr_values` or `max_age`."""
        return self.acr_values is not None or self.max_age is not None

    def stepped_up(self, challenge: str) -> Target:
        """Return this target with the `acr_values` and `max_age` that a challenge demands (RFC 9470 section 3)."""
        values = re.search(r'acr_values="([^"\\]{1,4096})"', challenge)
        max_age = re.search(r'max_age="?([0-9]{1,10})', challenge)
        return replace(self, acr_values=values and values[1], max_age=max_age and int(max_age[1]))


@dataclass(frozen=True, slots=True)
class Token:
    text: str = field(repr=False)
    answer: dict[str, Any] = field(repr=False)
    """the token response, as the issuer sent it"""
    got_at: int
    renew_at: int
    key: jose.PrivateKey | None = field(repr=False)
    """the private key to which the token is bound; None for a bearer token"""


class TokenRefused(Forbidden):
    """The issuer refused to issue a token. Code, message and hint come from the issuer."""


class StepUpNeeded(TokenRefused):
    """A resource requires a token with a stronger or newer authentication, and the issuer does not issue such a token
    (RFC 9470).
    """

    code = INSUFFICIENT

    def __init__(self, target: Target, why: TokenRefused) -> None:
        demands = [f"`acr` {target.acr_values}"] if target.acr_values else []
        demands += [] if target.max_age is None else [f"authentication within the last {target.max_age} s"]
        super().__init__(f"{target.resource} requires {' and '.join(demands)}: {why.message}", hint=why.hint)
        self.acr_values, self.max_age = target.acr_values, target.max_age
