"""`ostiary signal`: trusted issuers of security events, and receivers of events (Shared Signals, CAEP, RISC)."""

from __future__ import annotations

from typing import Any, Literal

from cyclopts import App

from ostiary import ambient
from ostiary.cli.output import facts, table
from ostiary.cli.session import PAGE, Here, Session, Word

signal = App(name="signal", help="Exchange security events with other systems: Shared Signals, CAEP, RISC.")
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
    """Trust the signals of an issuer about persons with a mail address in a `--domain`, persons linked to the issuer
    (`ostiary signal link`), and, with `--agents`, agents.

    With OSTIARY_SIGNAL_AUTHORIZATION in the environment (as `Bearer ...`), this server creates the stream at the
    issuer. Without this variable, create the stream by hand; the values that the issuer needs to push are shown once.

    Args:
        issuer: https://HOST[:PORT][/PATH], as in the `iss` of the signals.
        method: `push` by the issuer, or `poll` by this server.
        domain: Mail domain of persons whom the issuer manages; may be given several times.
        agents: Accept signals about agents too.
        audience: Audience of the signals; by default, the audience of the stream, or the public URL of this server.
        jwks_uri: URL of the issuer's keys, for an issuer without an ssf-configuration.
        endpoint: URL to poll, for a stream that was created by hand.
    """
    body = {
        "issuer": issuer,
        "method": method,
        "domains": list(domain),
        "agents": agents,
        "audience": audience,
        "jwks_uri": jwks_uri,
        "endpoint": endpoint,
        "authorization": ambient.environ(AUTHORIZATION) or "",
    }
    session.show(session.api("POST", "/issuers", body), facts)


@signal.command(name="issuers")
def list_issuers(*, session: Here) -> None:
    """List the trusted issuers, with their numbers of signals and their last error."""
    columns = {
        "issuer_id": "ID",
        "issuer": "ISSUER",
        "method": "METHOD",
        "heard": "SIGNALS",
        "verified_at": "VERIFIED",
        "trouble": "ERROR",
    }
    rows = session.pages("/issuers", "issuers")
    session.show(rows, lambda rows: table(rows, columns, empty="no issuer is trusted: ostiary signal trust ISSUER"))


@signal.command(name="distrust")
def distrust(issuer_id: str, /, *, session: Here) -> None:
    """Distrust an issuer. Everything that its signals stopped stays stopped.

    Args:
        issuer_id: Id from `ostiary signal issuers`.
    """
    session.show(session.api("DELETE", f"/issuers/{issuer_id}"), facts)


@signal.command(name="verify")
def verify(issuer_id: str, /, *, session: Here) -> None:
    """Request a verification event from an issuer. `ostiary signal issuers` shows the time of its arrival.

    Args:
        issuer_id: Id from `ostiary signal issuers`.
    """
    _done(session, session.api("POST", f"/issuers/{issuer_id}/verify", {}))


@signal.command(name="link")
def link(issuer_id: str, sub: Word, person: str, /, *, session: Here) -> None:
    """Link a `sub` of an issuer to a person.

    Args:
        issuer_id: Id from `ostiary signal issuers`.
        sub: Name of the person at the issuer.
        person: Name or id.
    """
    session.show(session.api("POST", f"/issuers/{issuer_id}/links", {"sub": sub, "person": person}), facts)


@signal.command(name="unlink")
def unlink(issuer_id: str, sub: Word, /, *, session: Here) -> None:
    """Unlink a `sub` of an issuer from its person.

    Args:
        issuer_id: Id from `ostiary signal issuers`.
        sub: Name of the person at the issuer.
    """
    _done(session, session.api("POST", f"/issuers/{issuer_id}/unlink", {"sub": sub}))


@signal.command(name="links")
def links(issuer_id: str, /, *, limit: int = PAGE, session: Here) -> None:
    """List the links between each `sub` of an issuer and a person.

    Args:
        issuer_id: Id from `ostiary signal issuers`.
        limit: Largest number of rows.
    """
    rows = session.pages(f"/issuers/{issuer_id}/links", "links", limit=limit)
    session.show(rows, lambda rows: table(rows, {"sub": "SUB", "person": "PERSON"}, empty="no person is linked"))


@signal.command(name="streams")
def list_streams(*, session: Here) -> None:
    """List the streams to receivers, with their numbers of delivered, lost and failed signals."""
    columns = {
        "stream_id": "ID",
        "receiver": "RECEIVER",
        "method": "METHOD",
        "status": "STATUS",
        "delivered": "DELIVERED",
        "lost": "LOST",
        "failed": "FAILED",
    }
    rows = session.pages("/streams", "streams")
    session.show(rows, lambda rows: table(rows, columns, empty="no streams; each receiver creates its own stream"))


@signal.command(name="stream")
def set_stream(
    stream_id: str, status: Literal["enabled", "paused", "disabled"], /, *, reason: str = "", session: Here
) -> None:
    """Enable, pause or disable a stream, and notify its receiver. A paused stream keeps its signals.

    Args:
        stream_id: Id from `ostiary signal streams`.
        status: enabled, paused or disabled.
        reason: Reason, for the receiver.
    """
    session.show(session.api("POST", f"/streams/{stream_id}", {"status": status, "reason": reason}), facts)


def _done(session: Session, answer: Any) -> None:
    session.show(answer, lambda _: None)
