"""Consents: the access that a person granted to a client, stored per person, client and resource."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence

import msgspec

from ostiary.authorization.bounds import ToolDetail, is_within
from ostiaryd.tokens.model.grants import InvalidRequest

HOUR_S = 3600
LIFETIMES = {
    HOUR_S: "1 hour",
    8 * HOUR_S: "8 hours",
    24 * HOUR_S: "1 day",
    7 * 24 * HOUR_S: "7 days",
    30 * 24 * HOUR_S: "30 days",
}
"""Lifetimes of a consent that a person can choose from, in seconds, with their words on the consent page. The longest
is the default.
"""


class Consent(msgspec.Struct, frozen=True, kw_only=True):
    """A person's consent to a client, with the agent that acts for the client. `resource` is a URI, or empty if only
    scopes of OpenID Connect were granted. Times are in microseconds.

    `digest` is the digest of the client metadata that the person saw (`ClientMetadata.digest`).
    """

    consent_id: str
    client_id: str
    client_name: str
    person: str
    agent: str
    resource: str
    scopes: frozenset[str]
    details: tuple[ToolDetail, ...]
    digest: str
    granted_at: int
    expires_at: int
    ended_at: int | None = None
    ended_why: str = ""

    def is_live(self, now: int) -> bool:
        """Return whether the consent has neither been withdrawn nor expired at `now` (microseconds)."""
        return self.ended_at is None and now < self.expires_at

    def covers(self, scopes: frozenset[str], details: Sequence[ToolDetail], *, digest: str, now: int) -> bool:
        """Return whether the consent is in force, the client metadata still have the digest `digest`, and the scopes
        and bounds lie within the consent: then the person need not be asked again.
        """
        return self.is_live(now) and self.digest == digest and self.allows(scopes, details)

    def allows(self, scopes: frozenset[str], details: Sequence[ToolDetail]) -> bool:
        """Return whether these scopes and bounds lie within the scopes and bounds of the consent."""
        if not scopes <= self.scopes:
            return False
        return not self.details or (bool(details) and is_within(details, self.details))


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """The scopes and bounds that a consent page offers to the person. `resource` is a URI, or empty if the request is
    only for scopes of OpenID Connect.
    """

    resource: str
    scopes: frozenset[str]
    details: tuple[ToolDetail, ...]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a person on a consent page: the ticked scopes, the positions of the ticked bounds in the offer
    (from 0), and the lifetime in seconds. `digest` is the digest of the client metadata that the page showed.
    """

    scopes: frozenset[str]
    details: frozenset[int]
    seconds: int
    digest: str


def read_choice(form: Mapping[str, str]) -> Choice:
    """Return the choice in the fields of a consent page: `scope.NAME` and `detail.PLACE`, `seconds`, and
    `client_digest`. Raises InvalidRequest for fields in another form.
    """
    places = [name.removeprefix("detail.") for name in form if name.startswith("detail.")]
    seconds = form.get("seconds", str(max(LIFETIMES)))
    if not all(text.isascii() and text.isdecimal() and len(text) < 10 for text in (*places, seconds)):
        raise InvalidRequest("the form differs from the consent page of this server", hint="reload the page")
    return Choice(
        scopes=frozenset(name.removeprefix("scope.") for name in form if name.startswith("scope.")),
        details=frozenset(map(int, places)),
        seconds=int(seconds),
        digest=form.get("client_digest", ""),
    )


_LOOKALIKES = str.maketrans(
    {
        "0": "o",
        "1": "l",
        "|": "l",
        "i": "l",
        "3": "e",
        "5": "s",
        "@": "a",
        "$": "s",
        "а": "a",
        "е": "e",
        "о": "o",
        "р": "p",
        "с": "c",
        "у": "y",
        "х": "x",
        "і": "l",
        "ѕ": "s",
        "ј": "j",
        "ԁ": "d",
        "һ": "h",
        "ӏ": "l",
        "ո": "n",
        "α": "a",
        "ε": "e",
        "ι": "l",
        "κ": "k",
        "ν": "v",
        "ο": "o",
        "ρ": "p",
        "τ": "t",
        "υ": "u",
        "χ": "x",
    }
)
"""Characters that are easily mistaken for each other (a part of UTS 39), after case folding."""


def skeleton(name: str) -> str:
    """Return a name reduced to a form for comparison: without case, accents, separators and the difference between
    look-alike letters.
    """
    folded = unicodedata.normalize("NFKD", name).casefold().translate(_LOOKALIKES).replace("rn", "m").replace("vv", "w")
    return "".join(filter(str.isalnum, folded))


def find_lookalike(name: str, others: Collection[str]) -> str | None:
    """Return the first of the `others` that looks like `name` or equals it; None if there is none."""
    mine = skeleton(name)
    return next((other for other in others if skeleton(other) == mine), None) if mine else None
