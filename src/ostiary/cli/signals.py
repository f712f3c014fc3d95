"""`ostiary signal`: whose signals are believed, and who hears ours (Shared Signals, CAEP, RISC)."""

from __future__ import annotations

from typing import Any, Literal

from cyclopts import App

from ostiary import ambient
from ostiary.cli.paper import facts, table
from ostiary.cli.session import PAGE, Here, Session, Word

signal = App(name="signal", help="Security events from others and to others: Shared Signals, CAEP, RISC.")
AUTHORIZATION = "OSTIARY_SIGNAL_AUTHORIZATION"


@signal.command(name="trust")
def trust(
    issuer: str,
    /,
    *,
    method: Literal["push", "poll"] = "push",
    domain: tuple[str, ...] = (),
    agents: bool = False,
    audience: str = "",
    jwks_uri: str = "",
    endpoint: str = "",
    session: Here,
) -> None:
    """Believe the signals of an issuer. What it may tell of: persons with a mail address in a --domain, persons that
    `signal link` names, and with --agents our agents.

    With OSTIARY_SIGNAL_AUTHORIZATION in the environment (as `Bearer ...`) the stream is made over there. Without, make
    it there by hand: what it needs to push is shown this once.

    Args:
        issuer: https://HOST[:PORT][/PATH], as it writes itself in `iss`.
        method: Whether it pushes, or is polled.
        domain: A mail domain whose persons are its own; may be given several times.
        agents: It may also name agents of ours.
        audience: Who we are to it; without, who the stream is for, or our public URL.
        jwks_uri: Where its keys are, if it has no ssf-configuration.
        endpoint: Where it is polled, if the stream was made by hand.
    """
    body = {
        "issuer": issuer, "method": method, "domains": list(domain), "agents": agents, "audience": audience,
        "jwks_uri": jwks_uri, "endpoint": endpoint, "authorization": ambient.environ(AUTHORIZATION) or "",
    }  # fmt: skip
    session.show(session.api("POST", "/issuers", body), facts)


@signal.command(name="issuers")
def list_issuers(*, session: Here) -> None:
    """List whose signals are believed, and how they do."""
    columns = {
        "issuer_id": "ID", "issuer": "ISSUER", "method": "METHOD", "heard": "HEARD", "verified_at": "VERIFIED",
        "trouble": "TROUBLE",
    }  # fmt: skip
    found = session.pages("/issuers", "issuers")
    session.show(found, lambda rows: table(rows, columns, empty="nobody: ostiary signal trust ISSUER"))


@signal.command(name="distrust")
def distrust(issuer_id: str, /, *, session: Here) -> None:
    """Believe it no more. What it had stopped stays stopped.

    Args:
        issuer_id: As `ostiary signal issuers` shows it.
    """
    session.show(session.api("DELETE", f"/issuers/{issuer_id}"), facts)


@signal.command(name="verify")
def verify(issuer_id: str, /, *, session: Here) -> None:
    """Have the issuer send a verification; `ostiary signal issuers` shows when it came.

    Args:
        issuer_id: As `ostiary signal issuers` shows it.
    """
    _done(session, session.api("POST", f"/issuers/{issuer_id}/verify", {}))


@signal.command(name="link")
def link(issuer_id: str, sub: Word, person: str, /, *, session: Here) -> None:
    """Say which person a `sub` of the issuer is.

    Args:
        issuer_id: As `ostiary signal issuers` shows it.
        sub: As the issuer names the person.
        person: Name or id.
    """
    session.show(session.api("POST", f"/issuers/{issuer_id}/links", {"sub": sub, "person": person}), facts)


@signal.command(name="unlink")
def unlink(issuer_id: str, sub: Word, /, *, session: Here) -> None:
    """Say that a `sub` of the issuer is nobody any more.

    Args:
        issuer_id: As `ostiary signal issuers` shows it.
        sub: As the issuer names the person.
    """
    _done(session, session.api("POST", f"/issuers/{issuer_id}/unlink", {"sub": sub}))


@signal.command(name="links")
def links(issuer_id: str, /, *, limit: int = PAGE, session: Here) -> None:
    """List who the `sub`s of an issuer are.

    Args:
        issuer_id: As `ostiary signal issuers` shows it.
        limit: How many at most.
    """
    found = session.pages(f"/issuers/{issuer_id}/links", "links", limit=limit)
    session.show(found, lambda rows: table(rows, {"sub": "SUB", "person": "PERSON"}, empty="nobody is linked"))


@signal.command(name="streams")
def list_streams(*, session: Here) -> None:
    """List who hears our signals, and how they do."""
    columns = {
        "stream_id": "ID", "receiver": "RECEIVER", "method": "METHOD", "status": "STATUS", "delivered": "DELIVERED",
        "lost": "LOST", "failed": "FAILED",
    }  # fmt: skip
    found = session.pages("/streams", "streams")
    session.show(found, lambda rows: table(rows, columns, empty="nobody: a receiver makes its stream itself"))


@signal.command(name="stream")
def set_stream(
    stream_id: str, status: Literal["enabled", "paused", "disabled"], /, *, reason: str = "", session: Here
) -> None:
    """Enable, pause or disable a stream; its receiver is told. Paused, it keeps what would go out.

    Args:
        stream_id: As `ostiary signal streams` shows it.
        status: enabled, paused or disabled.
        reason: Why, for the receiver.
    """
    session.show(session.api("POST", f"/streams/{stream_id}", {"status": status, "reason": reason}), facts)


def _done(session: Session, answer: Any) -> None:
    session.show(answer, lambda _: None)
