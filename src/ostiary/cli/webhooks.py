"""`ostiary webhook`: who is told of what happens."""

from __future__ import annotations

from typing import Any, Literal

from cyclopts import App

from ostiary.cli.paper import facts, table
from ostiary.cli.session import Here, Session

Form = Literal["signed", "slack", "teams", "mattermost", "plain", "mail"]

webhook = App(name="webhook", help="Who is told of what happens: programs, chats, people by mail.")


@webhook.command(name="add")
def add(url: str, /, *, event: tuple[str, ...] = (), form: Form | None = None, session: Here) -> None:
    """Tell a URL of what happens from now on, again until it hears: a program by signed messages, or people in words.

    The secret that a program verifies with is shown this once.

    Args:
        url: https://HOST[:PORT][/PATH][?QUERY], http on this machine alone; or mailto:ADDRESS.
        event: An action of the ledger, as approval.ask; may be given several times. Without, what people must hear.
        form: How it is told; without, by mail where it is an address, else signed.
    """
    how = form or ("mail" if url.startswith("mailto:") else "signed")
    session.show(session.api("POST", "/webhooks", {"url": url, "events": list(event), "form": how}), facts)


@webhook.command(name="list")
def list_webhooks(*, session: Here) -> None:
    """List webhooks, and how they do."""
    columns = {
        "webhook_id": "ID", "form": "FORM", "url": "URL", "state": "STATE", "delivered": "DELIVERED", "lost": "LOST",
        "failed": "FAILED",
    }  # fmt: skip
    found = session.pages("/webhooks", "webhooks")
    session.show(found, lambda rows: table(rows, columns, empty="no webhook: ostiary webhook add URL"))


@webhook.command(name="test")
def test(*, session: Here) -> None:
    """Let every webhook hear that it is one. `ostiary webhook list` shows whether it has."""
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
