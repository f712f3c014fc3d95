"""Trusted issuers (SSF 1.0 receiver; CAEP 1.0, RISC 1.0): the subjects for which they may speak, and the effects.

An issuer may speak only for its own persons: persons whose `sub` at the issuer an administrator has linked, and persons
whose e-mail address is in a domain assigned to the issuer. The issuer may speak for agents of this server only if an
administrator allows this. All other subjects are ignored.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple, NewType
from urllib.parse import urlsplit

import msgspec

from ostiary.protocol.errors import Invalid
from ostiaryd.registry.model import AgentId, OwnerId
from ostiaryd.signals.model.sets import CAEP, RISC, SECOND, SecurityEvent, Subject, identifiers

IssuerId = NewType("IssuerId", str)
MAX_ISSUERS = 20
MAX_DOMAINS = 32
UNDERSTOOD = frozenset({"user"})
"""Members of a complex subject that this server can process (SSF 3.5)."""
POLL_DELAYS_S = (1, 5, 30, 60, 300)
"""Seconds until the next poll after the first, second, ... failed poll in sequence; the last value repeats."""
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+")


class Issuer(msgspec.Struct, frozen=True, kw_only=True):
    """A trusted issuer of signals. `stream` is the issuer's id of the stream to this server. `secret_digest` is the
    digest of the Authorization header that the issuer sends with a push; `sealed` is the encrypted Authorization header
    that this server sends.

    `state` is the state of a requested verification; `trouble` describes the present error. `received` counts the valid
    tokens, each only once. Times are microseconds since the epoch.
    """

    issuer_id: IssuerId
    issuer: str
    audience: str
    jwks_uri: str
    method: str
    endpoint: str
    secret_digest: bytes | None
    sealed: bytes | None
    domains: tuple[str, ...]
    names_agents: bool
    critical: tuple[str, ...]
    stream: str
    configuration_endpoint: str
    verification_endpoint: str
    created_at: int
    state: str | None = None
    verified_at: int | None = None
    trouble: str = ""
    received: int = 0
    received_at: int | None = None
    attempts: int = 0
    due_at: int = 0
    busy_until: int = 0


class Effect(StrEnum):
    """The effect of an event about an agent, or about a person with the agents for which the person is accountable.
    `end`: their tasks and holdings (such as tokens and leases) end; the agents may start again. `stop`: the same, and
    the agents are stopped until a person decides. `raise_risk`: the risk score of the agents rises, and nothing ends.
    """

    END = "end"
    STOP = "stop"
    RAISE_RISK = "raise_risk"


EFFECTS_TOPIC = "effects"
"""Topic of unfinished effects in the outbox."""


class UnfinishedEffect(msgspec.Struct, frozen=True):
    """The effect of a received signal on the agents of `owners` whose ids are above `after`. Agents of the owners
    `unstopped` are quarantined, because the kill switch does not stop these owners. `issuer`: the id of the issuer;
    `named`: the ids of the agents that the event itself states.
    """

    issuer: str
    effect: Effect
    points: int
    why: str
    owners: list[OwnerId]
    unstopped: list[OwnerId]
    named: list[AgentId]
    after: str = ""


class AcceptedSubjects(NamedTuple):
    """The subjects of an event for which its issuer may speak: `emails` in lower case, `subs` (`sub` values of the
    issuer), and `ours` (ids of agents and persons of this server).
    """

    emails: tuple[str, ...] = ()
    subs: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()


_ALWAYS = {
    f"{CAEP}session-revoked": (Effect.END, 0),
    f"{RISC}sessions-revoked": (Effect.END, 0),
    f"{RISC}account-credential-change-required": (Effect.END, 0),
    f"{RISC}account-disabled": (Effect.STOP, 0),
    f"{RISC}account-purged": (Effect.STOP, 0),
    f"{RISC}credential-compromise": (Effect.STOP, 0),
}
_IF = {
    f"{CAEP}credential-change": ("change_type", {"revoke": (Effect.END, 0), "delete": (Effect.END, 0)}),
    f"{CAEP}risk-level-change": ("current_level", {"HIGH": (Effect.RAISE_RISK, 60), "MEDIUM": (Effect.RAISE_RISK, 30)}),
    f"{CAEP}assurance-level-change": ("change_direction", {"decrease": (Effect.RAISE_RISK, 30)}),
    f"{CAEP}device-compliance-change": ("current_status", {"not-compliant": (Effect.RAISE_RISK, 30)}),
}
EVENTS = (*_ALWAYS, *_IF)
"""The event types that this server requests from a transmitter."""


def effect_of(event: SecurityEvent) -> tuple[Effect, int] | None:
    """Return the effect of an event and the points by which it raises the risk score; None if the event is only
    recorded, and changes no subject.
    """
    if event.event in _ALWAYS:
        return _ALWAYS[event.event]
    name, cases = _IF.get(event.event, ("", {}))
    value = event.claims.get(name)
    return cases.get(value) if isinstance(value, str) else None


def accepted_subjects(issuer: Issuer, subject: Subject, *, ours: str) -> AcceptedSubjects:
    """Return those subjects of an event for which the issuer may speak. `ours`: the issuer name of this server."""
    emails, subs, ids = [], [], []
    for one in identifiers(subject):
        match one:
            case {"format": "email", "email": str(email)} if _domain(email) in issuer.domains:
                emails.append(email.lower())
            case {"format": "iss_sub", "iss": issuer.issuer, "sub": str(sub)}:
                subs.append(sub)
            case {"format": "iss_sub", "iss": str(iss), "sub": str(sub)} if iss == ours and issuer.names_agents:
                ids.append(sub)
    return AcceptedSubjects(tuple(emails), tuple(subs), tuple(ids))


def find_unsupported_member(issuer: Issuer, subject: Subject) -> str:
    """Return the name of the first member of a complex subject that the issuer's metadata declare critical and that
    this server cannot process; empty if there is none. An event with such a member is discarded (SSF 3.5).
    """
    if subject["format"] != "complex":
        return ""
    return next((name for name in subject if name in issuer.critical and name not in UNDERSTOOD), "")


def check_domains(domains: tuple[str, ...]) -> tuple[str, ...]:
    """Check the mail domains of an issuer, and return each domain once, in lower case. Raises Invalid if the check
    fails.
    """
    lower = tuple(dict.fromkeys(domain.lower() for domain in domains))
    if len(lower) > MAX_DOMAINS:
        raise Invalid(f"`domains` has {len(lower)} values; the limit is {MAX_DOMAINS}")
    if wrong := [domain for domain in lower if not _DOMAIN.fullmatch(domain)]:
        raise Invalid(f"{wrong[0][:64]!a} in `domains` is not a domain", hint="write a domain as example.org")
    return lower


def discovery_url(issuer: str) -> str:
    """Return the URL of the transmitter's metadata (SSF 7.2.1)."""
    parts = urlsplit(issuer)
    return f"{parts.scheme}://{parts.netloc}/.well-known/ssf-configuration{parts.path.rstrip('/')}"


def after_failed_poll(issuer: Issuer, *, why: str, now: int) -> Issuer:
    """Return the issuer after a failed poll with the error `why`, with the time of the next poll."""
    delay = POLL_DELAYS_S[min(issuer.attempts, len(POLL_DELAYS_S) - 1)]
    return msgspec.structs.replace(
        issuer, attempts=issuer.attempts + 1, due_at=now + delay * SECOND, busy_until=0, trouble=why
    )


def short_name(event: str) -> str:
    """Return the last part of an event type's URI, for people and for entries."""
    return event.rpartition("/")[2][:64]


def _domain(email: str) -> str:
    return email.rpartition("@")[2].lower()
