"""`ostiary webhook`: deliveries of ledger events to programs, chats and mail addresses."""

from __future__ import annotations

from typing import Any, Literal

from cyclopts import App

from ostiary.cli.output import facts, table
from ostiary.cli.session import Here, Session

Form = Literal["signed", "slack", "teams", "mattermost", "plain", "mail"]

webhook = App(name="webhook", help="Add, list and test deliveries of events to URLs, chats and mail.")


@webhook.command(name="add")
def add(url: str, /, *, event: tuple[str, ...] = (), form: Form | None = None, session: Here) -> None:
    """Add a webhook: deliver events to a URL, as signed messages or in words. Failed deliveries are retried.

    The secret with which a program verifies messages is shown once.

    Args:
        url: https://HOST[:PORT][/PATH][?QUERY], http on this machine only; or mailto:ADDRESS.
        event: Action of the ledger, such as approval.ask; may be given several times. By default, the events in the
            list of docs/how-to/alerts.md.
        form: Form of the messages: signed for a program; slack, teams, mattermost or plain for a chat; mail for a
            mailto address. By default, mail for a mailto address, and signed for any other URL.
    """
    how = form or ("mail" if url.startswith("mailto:") else "signed")
    session.show(session.api("POST", "/webhooks", {"url": url, "events": list(event), "form": how}), facts)


@webhook.command(name="list")
def list_webhooks(*, session: Here) -> None:
    """List webhooks with their numbers of delivered, lost and failed messages."""
    columns = {
        "webhook_id": "ID",
        "form": "FORM",
        "url": "URL",
        "state": "STATE",
        "delivered": "DELIVERED",
        "lost": "LOST",
        "failed": "FAILED",
    }
    rows = session.pages("/webhooks", "webhooks")
    session.show(rows, lambda rows: table(rows, columns, empty="no webhook: ostiary webhook add URL"))


@webhook.command(name="test")
def test(*, session: Here) -> None:
    """Send a test event to every webhook. `ostiary webhook list` then counts the event as delivered or failed."""
    _done(session, session.api("POST", "/webhooks/test", {}))


@webhook.command(name="remove")
def remove(webhook_id: str, /, *, session: Here) -> None:
    """Remove a webhook.

    Args:
        webhook_id: Id from `ostiary webhook list`.
    """
    _done(session, session.api("DELETE", f"/webhooks/{webhook_id}"))


def _done(session: Session, answer: Any) -> None:
    session.show(answer, lambda _: None)
