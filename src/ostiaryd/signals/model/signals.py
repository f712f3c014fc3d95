"""The signals that this server sends: the CAEP 1.0 event of a change, its subject, and a reason without text by people.

Subjects are named as in access tokens (`iss` and `sub`), so a receiver that never saw a token learns no name. Reasons
that people wrote stay in the ledger; `txn` is the index of the ledger entry.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from ostiaryd.signals.model.sets import (
    CREDENTIAL_CHANGE,
    RISK_LEVEL_CHANGE,
    SECOND,
    SESSION_REVOKED,
    Signal,
    Subject,
    iss_sub,
)

BroadStop: TypeAlias = Literal["owner", "resource", "segment", "model", "everything"]
"""The kinds of stops of the kill switch, except a task, whose stop has a subject of its own (`session_subject`)."""
LEVELS = LOW, MEDIUM, HIGH = "LOW", "MEDIUM", "HIGH"
MEDIUM_FROM, HIGH_FROM = 30, 70
"""Risk score from which the level is MEDIUM, and from which the level is HIGH."""


def level_of(points: int) -> str:
    """Return the `current_level` of CAEP 3.8.1 for a risk score."""
    return HIGH if points >= HIGH_FROM else MEDIUM if points >= MEDIUM_FROM else LOW


def agent_stopped(issuer: str, agent: str, *, state: str, at: int, txn: str, why: str) -> Signal:
    """Return the signal (CAEP 3.1) that every token and task of the agent has ended; `state` is the agent's new state,
    which says whether the agent can get new tokens.
    """
    reason = f"all holdings of the agent have ended; the agent is {state} ({why})"
    return Signal(event=SESSION_REVOKED, subject=iss_sub(issuer, agent), claims=_why(reason, at), txn=txn)


def task_stopped(issuer: str, agent: str, task: str, *, at: int, txn: str, why: str) -> Signal:
    """Return the signal (CAEP 3.1) that one session has ended. A task of the agent is sent as a session."""
    claims = _why(f"the task was revoked, with every task and token derived from the task ({why})", at)
    return Signal(event=SESSION_REVOKED, subject=session_subject(issuer, agent, task), claims=claims, txn=txn)


def session_subject(issuer: str, agent: str, task: str) -> Subject:
    """Return the complex subject (SSF 3.3) of an agent's session; the id of the session is the id of the task."""
    return {"format": "complex", "user": iss_sub(issuer, agent), "session": {"format": "opaque", "id": task}}


def subject_of_stop(issuer: str, trust_domain: str, target_kind: BroadStop, value: str) -> Subject:
    """Return the subject of a kill-switch stop whose target is not a task: for an owner, `iss_sub` with the id of the
    person or team; otherwise a complex subject whose members must all match (SSF 8.1.3.1). `value`: the id or name of
    the target; empty for `everything`.
    """
    everybody: Subject = {"format": "complex", "tenant": {"format": "opaque", "id": trust_domain}}
    match target_kind:
        case "owner":
            return iss_sub(issuer, value)
        case "segment" | "model":
            return everybody | {"group": {"format": "opaque", "id": f"{target_kind}:{value}"}}
        case "resource":
            return everybody | {"application": {"format": "uri", "uri": value}}
        case "everything":
            return everybody


def subject_stopped(subject: Subject, *, at: int, txn: str, why: str) -> Signal:
    """Return the signal of a stop by the kill switch (CAEP 3.1), which is in force until a person lifts the stop. No
    signal follows when the stop is lifted.
    """
    claims = _why(f"stopped until a person lifts the stop ({why})", at)
    return Signal(event=SESSION_REVOKED, subject=subject, claims=claims, txn=txn)


def key_revoked(issuer: str, holder: str, jkt: str, *, at: int, txn: str, why: str) -> Signal:
    """Return the signal of a revoked key (CAEP 3.3). The credential type `jwk` is an extension of this server, since
    CAEP has no type for a client's registered key.
    """
    claims = {"credential_type": "jwk", "change_type": "revoke", "friendly_name": jkt}
    claims |= _why(f"the key was revoked, with every token issued for the key ({why})", at)
    return Signal(event=CREDENTIAL_CHANGE, subject=iss_sub(issuer, holder), claims=claims, txn=txn)


def level_changed(issuer: str, agent: str, *, was: str, level: str, at: int) -> Signal:
    """Return the signal of a changed risk level (CAEP 3.8): from `was` to `level`."""
    claims = {
        "principal": "AGENT",
        "current_level": level,
        "previous_level": was,
        "event_timestamp": at // SECOND,
        "risk_reason": "BEHAVIOUR_NOTICED" if LEVELS.index(level) > LEVELS.index(was) else "NOTHING_MORE_NOTICED",
    }
    return Signal(event=RISK_LEVEL_CHANGE, subject=iss_sub(issuer, agent), claims=claims)


def _why(reason: str, at: int) -> dict[str, Any]:
    """Return the members that state the reason of an event (CAEP section 2); the interoperability profile requires
    `reason_admin`.
    """
    return {"event_timestamp": at // SECOND, "reason_admin": {"en": reason}}
