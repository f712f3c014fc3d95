"""Webhooks for administrators, as JSON under /api/v1."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

import msgspec

from ostiary.protocol.errors import Invalid
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import reply_short_list
from ostiaryd.ground.http.routes import PAGE, EmptyBody, PageBody, Route
from ostiaryd.ledger.flows import Act
from ostiaryd.notifications import flows, store
from ostiaryd.notifications.model.webhooks import SECOND, Form, Webhook, show_secret
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN


class NewWebhook(msgspec.Struct, forbid_unknown_fields=True):
    """A webhook to add. `events`: actions of the ledger, such as `approval.ask`; empty for the default actions."""

    url: str
    events: tuple[str, ...] = ()
    form: Form = "signed"


class WebhookBody(TypedDict):
    """A webhook and the state of its deliveries. Times are seconds since the epoch."""

    webhook_id: str
    url: str
    form: str
    events: tuple[str, ...]
    state: Literal["ok", "failing", "gone"]
    delivered: int
    delivered_at: float | None
    lost: int
    attempts: int
    failed: str | None
    secret: NotRequired[str]


async def add_webhook(call: Call) -> Reply:
    """Register a webhook URL or a `mailto:` address for events of the ledger.

    Only this response contains the `secret` that signs messages to a program. Chats and mail have no secret.
    """
    new, config = call.json(NewWebhook), call.world.config
    if new.form == "mail" and not config.mail_server:
        hint = "set `mail_server` and `mail_from` (docs/reference/configuration.md)"
        raise Invalid("no mail server is configured", hint=hint)

    def run(act: Act) -> tuple[Webhook, bytes]:
        return flows.add(act, url=new.url, actions=new.events, form=new.form, private=config.private)

    made, key = await registry.act_as(call, "webhook.add", run)
    return reply(_render(made) | ({} if made.is_for_people else {"secret": show_secret(key)}), status=201)


async def list_webhooks(call: Call) -> Reply:
    """List the webhooks and the state of their deliveries."""
    return await reply_short_list(
        call,
        "webhooks",
        store.webhooks,
        lambda _, one: _render(one),
        cursor=lambda one: one.webhook_id,
    )


async def remove_webhook(call: Call) -> Reply:
    """Remove a webhook. Its waiting messages are not delivered."""
    await registry.act_as(call, "webhook.remove", lambda act: flows.remove(act, call.params["id"]))
    return reply({})


async def test_webhooks(call: Call) -> Reply:
    """Write one test entry, which every webhook receives."""
    await registry.act_as(call, "webhook.test", flows.record_test)
    return reply({})


def _render(webhook: Webhook) -> WebhookBody:
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
    Route("POST", "/api/v1/webhooks", add_webhook, ADMIN, body=NewWebhook, answers={201: WebhookBody}),
    Route(
        "GET", "/api/v1/webhooks", list_webhooks, ADMIN, answers={200: PageBody("webhooks", WebhookBody)}, query=PAGE
    ),
    Route("POST", "/api/v1/webhooks/test", test_webhooks, ADMIN, answers={200: EmptyBody}),
    Route("DELETE", "/api/v1/webhooks/{id}", remove_webhook, ADMIN, answers={200: EmptyBody}),
)
