"""Refusals: one family of exceptions. A refusal is raised, never returned; each protocol has one table that
renders it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class Refused(Exception):
    """A refused request.

    `code` is stable and machine-readable, `message` names the error, and `hint` the next step. None of the three may
    contain a secret: they reach logs, the ledger and the caller. `detail` names files, processes or addresses of the
    machine that refuses. Only the log, `ostiary doctor`, and a command that refuses on
    its own machine show the detail.
    """

    code = "refused"
    is_challenge = False
    """True if the refusal is a normal step of a protocol, such as the demand for a nonce, after which the client
    repeats the request. No entry of the ledger records such a refusal.
    """
    is_recorded = False
    """True once the refusal has an entry in the ledger."""

    def __init__(self, message: str, *, hint: str = "", code: str | None = None, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail
        for name, text in (("hint", hint), ("detail", detail)):
            if text:
                self.add_note(f"{name}: {text}")  # a traceback shows it
        if code is not None:
            self.code = code

    @property
    def message_with_detail(self) -> str:
        """Return the message and the detail, for the log and for commands on the machine that refuses."""
        return f"{self.message}: {self.detail}" if self.detail else self.message


class Malformed(Refused):
    """The input does not have the required format, and was not processed further."""

    code = "malformed"


class Unauthenticated(Refused):
    """The caller did not authenticate."""

    code = "unauthenticated"


class Forbidden(Refused):
    """The authenticated caller does not have this access."""

    code = "forbidden"


class NotFound(Refused):
    """The object does not exist, or the caller may not learn that it exists."""

    code = "not_found"


class Conflict(Refused):
    """The request contradicts the present state."""

    code = "conflict"


class Invalid(Refused):
    """A value has the right format, but is outside its limits."""

    code = "invalid"


class Unavailable(Refused):
    """The service cannot answer now; an enforcement point treats this as a denial."""

    code = "unavailable"


def check_list(name: str, values: Iterable[T]) -> list[T]:
    """Return the values of a function's argument as a list. Raises Invalid for a text, whose characters would be the
    values, and for an object, whose names would be the values.
    """
    if isinstance(values, (str, bytes, Mapping)):
        raise Invalid(f"`{name}` is one value instead of a list", hint=f"give a list: {name}=[...]")
    return list(values)
