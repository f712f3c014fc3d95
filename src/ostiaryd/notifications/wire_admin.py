"""Webhooks for administrators, as JSON under /api/v1."""

from __future__ import annotations

from typing import Any

import msgspec

from ostiary.protocol.errors import Invalid
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import behind, reply_page
from ostiaryd.ground.http.routes import Route
from ostiaryd.ledger.flows import Act
from ostiaryd.notifications import flows, store
from ostiaryd.notifications.model.webhooks import SECOND, Form, Webhook, show_secret
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN


class NewWebhook(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    events: tuple[str, ...] = ()
    form: Form = "signed"


async def add_webhook(call: Call) -> Reply:
    """Tell a URL, or mailto:ADDRESS, of the events of the ledger from now on; its `secret` is shown this once."""
    new, config = call.json(NewWebhook), call.world.config
    if new.form == "mail" and not config.mail_server:
        raise Invalid("no mail server is configured", hint="mail_server and mail_from: docs/reference/configuration.md")

    def run(act: Act) -> tuple[Webhook, bytes]:
        return flows.add(act, url=new.url, actions=new.events, form=new.form, private=config.private)

    made, key = await registry.act_as(call, "webhook.add", run)
    return reply(_render(made) | ({} if made.is_for_people else {"secret": show_secret(key)}), status=201)


async def list_webhooks(call: Call) -> Reply:
    """All webhooks, and how each of them does."""
    return await reply_page(
        call,
        "webhooks",
        lambda reader, page: behind(store.webhooks(reader), lambda one: one.webhook_id)(page),
        lambda _, one: _render(one),
        cursor=lambda one: one.webhook_id,
    )


async def remove_webhook(call: Call) -> Reply:
    """Tell it no more."""
    await registry.act_as(call, "webhook.remove", lambda act: flows.remove(act, call.params["id"]))
    return reply({})


async def test_webhooks(call: Call) -> Reply:
    """An event that every webhook hears."""
    await registry.act_as(call, "webhook.test", flows.test)
    return reply({})


def _render(webhook: Webhook) -> dict[str, Any]:
    return {
        "webhook_id": webhook.webhook_id,
        "url": webhook.url,
        "form": webhook.form,
        "events": webhook.actions,
        "state": "gone" if webhook.gone_at is not None else "failing" if webhook.failed else "ok",
        "delivered": webhook.delivered,
        "delivered_at": webhook.delivered_at and webhook.delivered_at / SECOND,
        "lost": webhook.lost,
        "attempts": webhook.attempts,
        "failed": webhook.failed,
    }


ROUTES = (
    Route("POST", "/api/v1/webhooks", add_webhook, ADMIN, body=NewWebhook),
    Route("GET", "/api/v1/webhooks", list_webhooks, ADMIN),
    Route("POST", "/api/v1/webhooks/test", test_webhooks, ADMIN),
    Route("DELETE", "/api/v1/webhooks/{id}", remove_webhook, ADMIN),
)
