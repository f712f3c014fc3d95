"""`ostiary webhook`: URLs that are told of what happens."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from ostiary.cli.paper import facts, table
from ostiary.cli.session import Here, Session

webhook = App(name="webhook", help="URLs that are told, signed and again until they hear, of what happens.")


@webhook.command(name="add")
def add(url: str, /, *, event: tuple[str, ...] = (), session: Here) -> None:
    """Tell a URL of what happens from now on. The secret that its receiver verifies with is shown this once.

    Args:
        url: https://HOST[:PORT][/PATH][?QUERY]; http on this machine alone.
        event: An action of the ledger, as approval.ask; may be given several times. Without, what people must hear.
    """
    session.show(session.api("POST", "/webhooks", {"url": url, "events": list(event)}), facts)


@webhook.command(name="list")
def list_webhooks(*, session: Here) -> None:
    """List webhooks, and how they do."""
    columns = {
        "webhook_id": "ID", "url": "URL", "state": "STATE", "delivered": "DELIVERED", "lost": "LOST", "failed": "FAILED"
    }  # fmt: skip
    found: list[dict[str, Any]] = session.api("GET", "/webhooks")["webhooks"]
    session.show(found, lambda rows: table(rows, columns, empty="no webhook: ostiary webhook add URL"))


@webhook.command(name="test")
def test(*, session: Here) -> None:
    """Let every webhook hear that it is one."""
    _done(session, session.api("POST", "/webhooks/test", {}))


@webhook.command(name="remove")
def remove(webhook_id: str, /, *, session: Here) -> None:
    """Tell it no more.

    Args:
        webhook_id: As `ostiary webhook list` shows it.
    """
    _done(session, session.api("DELETE", f"/webhooks/{webhook_id}"))


def _done(session: Session, answer: Any) -> None:
    session.show(answer, lambda _: None)
