"""Web Push: the subscriptions of browsers, and the delivery of a message about each new approval request.

A message contains the name of the agent, the tool and a path of the console, and is encrypted for the browser. The push
service learns the browser, the time and the size of the message. To answer a request, the person must log in and have
the right to answer.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TypedDict

import msgspec

from ostiary.protocol.errors import Forbidden, Invalid, Unavailable
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.html import page_url
from ostiaryd.ground.http.routes import CONFLICT, EmptyBody, Route
from ostiaryd.ground.outbound.fetch import deliver
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.notifications import flows, store
from ostiaryd.notifications.flows import DuePush
from ostiaryd.notifications.model.web_push import (
    GONE,
    PURPOSE,
    PUSH_TRY_S,
    SALT_BYTES,
    SECOND,
    Subscription,
    after_failed_attempt,
    after_push,
    encrypt_message,
    parse_browser_keys,
    sender_headers,
    sender_key,
)
from ostiaryd.notifications.model.webhooks import origin
from ostiaryd.notifications.wire_webhooks import RunningDeliveries
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import SELF
from ostiaryd.trust.model.sessions import describe_browser

MAX_DUE = 200
"""Maximum number of browsers to which one round of the background loop sends messages."""
log = logging.getLogger("ostiary")


class BrowserKeys(msgspec.Struct, forbid_unknown_fields=True):
    """The keys of a browser in base64url: a public key (a point of P-256), and an authentication secret."""

    p256dh: str
    auth: str


class NewSubscription(msgspec.Struct):
    """A subscription as `PushSubscription.toJSON` of a browser writes it."""

    endpoint: str
    keys: BrowserKeys


class SubscriptionBody(TypedDict):
    """A subscribed browser of the person. `service` is the origin of the browser's push service."""

    subscription_id: str
    browser: str
    service: str
    created_at: float


class PushBody(TypedDict):
    """The public key of the server for `PushManager.subscribe`, and the subscribed browsers of the person."""

    key: str
    subscriptions: list[SubscriptionBody]


async def show_push(call: Call) -> Reply:
    """Show the server's key, with which a browser subscribes, and the subscribed browsers of the calling person."""
    person = _person(call)
    rows = [_render(one) for one in store.subscriptions(call.world.db.read(), person)]
    body: PushBody = {"key": sender_key(call.world.keys.derive(PURPOSE)), "subscriptions": rows}
    return reply(body, headers=[NO_STORE])


async def subscribe(call: Call) -> Reply:
    """Subscribe a browser of the calling person to messages about new approval requests that the person may answer.

    The `endpoint` is a URL of the browser's push service. Its host must have a public address, or be in the setting
    `private_hosts`.
    """
    person, new = _person(call), call.json(NewSubscription)
    keys = parse_browser_keys(new.keys.p256dh, new.keys.auth)
    browser = describe_browser(call.header(b"user-agent"))
    private = call.world.config.private
    made = await registry.act_as(
        call,
        "push.subscribe",
        lambda act: flows.subscribe(act, person, endpoint=new.endpoint, keys=keys, browser=browser, private=private),
    )
    return reply(_render(made), status=201)


async def unsubscribe(call: Call) -> Reply:
    """Stop the messages to a browser of the calling person."""
    person, id = _person(call), call.params["id"]
    await registry.act_as(call, "push.unsubscribe", lambda act: flows.unsubscribe(act, person, id))
    return reply({})


def _person(call: Call) -> str:
    """Return the id of the calling person. Raises Forbidden if the caller is not a person."""
    if call.caller.kind != "person":
        raise Forbidden("only persons get push messages", hint="use a webhook for a program")
    return str(call.caller.id)


def _render(subscription: Subscription) -> SubscriptionBody:
    return {
        "subscription_id": subscription.subscription_id,
        "browser": subscription.browser,
        "service": origin(subscription.endpoint),
        "created_at": subscription.created_at / SECOND,
    }


async def push_due(world: World) -> None:
    """Start the delivery of a message to each browser whose person may answer a new approval request, and delete the
    subscriptions of persons who are no longer active. Returns before the deliveries end.
    """
    config, now = world.config, world.now()
    due = await world.db.scan(lambda reader: flows.list_due_pushes(reader, config=config, now=now, limit=MAX_DUE))
    passed = [one for one in due if not one.questions and not one.has_left]
    if passed:
        await world.writer.submit(lambda tx: flows.skip_pushes(tx, passed))
    for one in due:
        if one.has_left:
            await _end(world, one.subscription, "the person is no longer active")
        elif one.questions:
            world.get_singleton(RunningDeliveries).begin(one.subscription.subscription_id, partial(_push, world, one))


async def _push(world: World, due: DuePush) -> None:
    """Deliver one message to a browser, and record the result."""
    subscription = due.subscription
    try:
        claimed = await world.writer.submit(lambda tx: flows.claim_push(tx, subscription))
        if claimed is not None:
            await _deliver(world, due, claimed)
    except Exception:
        log.exception("the push to %s failed", subscription.subscription_id)


async def _deliver(world: World, due: DuePush, claimed: Subscription) -> None:
    now = world.now()
    message = await world.db.scan(lambda reader: flows.push_message(reader, due.questions))
    body = encrypt_message(
        msgspec.json.encode(message),
        public_key=claimed.public_key,
        auth=claimed.auth,
        secret=world.random(32),
        salt=world.random(SALT_BYTES),
    )
    contact = f"mailto:{world.config.mail_from}" if world.config.mail_from else page_url(world.config)
    ttl_s = (min(one.ends_at for one in due.questions) - now) // SECOND
    secret = world.keys.derive(PURPOSE)
    headers = sender_headers(secret, claimed.endpoint, contact=contact, now=now, ttl_s=ttl_s)
    status, after_s, failed = 0, 0, ""
    try:
        private = world.config.private
        status, after_s = await deliver(claimed.endpoint, body, headers=headers, within_s=PUSH_TRY_S, private=private)
        failed = f"the push service answers {status}"
    except (Invalid, Unavailable) as error:
        failed = error.message
    now = world.now()
    if 200 <= status < 300:
        then = after_push(claimed, through=due.through, now=now)
        await world.writer.submit(lambda tx: store.settle_subscription(tx, then, claim=claimed.busy_until))
    elif status in GONE:
        await _end(world, claimed, failed)
    elif (again := after_failed_attempt(claimed, now=now, retry_after_s=after_s)) is not None:
        await world.writer.submit(lambda tx: store.settle_subscription(tx, again, claim=claimed.busy_until))
    else:
        await act(
            world, "push.give_up", lambda act: flows.give_up_push(act, claimed, through=due.through, failed=failed)
        )


async def _end(world: World, subscription: Subscription, failed: str) -> None:
    await act(world, "push.end", lambda act: flows.end_push(act, subscription, failed=failed))


ROUTES = (
    Route("GET", "/api/v1/push", show_push, SELF, allows_people=True, answers={200: PushBody}),
    Route(
        "POST",
        "/api/v1/push",
        subscribe,
        SELF,
        allows_people=True,
        body=NewSubscription,
        answers={201: SubscriptionBody},
        errors=(CONFLICT,),
    ),
    Route("DELETE", "/api/v1/push/{id}", unsubscribe, SELF, allows_people=True, answers={200: EmptyBody}),
)
