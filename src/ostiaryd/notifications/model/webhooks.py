"""Webhooks: the actions that each webhook receives, the signature of messages (Standard Webhooks 1.0.0), and the delays
between attempts.

An event is an entry of the ledger, so events are not stored twice: a webhook stores the index of its next entry. Events
are delivered in order. A failed delivery is retried; after the last attempt, the event is skipped and counted as lost.
Programs get one message per event; people (`model/alerts.py`) get one message for all pending events.
"""

from __future__ import annotations

import base64
import hmac
import re
from datetime import UTC, datetime, timedelta
from typing import Literal, NewType
from urllib.parse import urlsplit

import msgspec

from ostiary.protocol.errors import Invalid
from ostiaryd.ledger.model import Entry

WebhookId = NewType("WebhookId", str)
Form = Literal["signed", "slack", "teams", "mattermost", "plain", "mail"]
"""The format of a webhook's messages: `signed` is for programs; each other format is for people."""
MAIL = "mailto:"
SECOND = 1_000_000
MAX_WEBHOOKS = 20
MAX_ACTIONS = 32
MAX_BODY = 20_000
"""Maximum number of bytes of a message to a program; a larger message is sent without the entry's detail and reasons.
"""
TEST = "webhook.test"
"""The action of a test event, which every webhook receives."""
TITLES = {
    "approval.ask": "Approval requested",
    "elevation.request": "Elevation requested",
    "approval.approve": "Approval request approved",
    "approval.deny": "Approval request denied",
    "approval.expire": "Approval request expired without an answer",
    "elevation.grant": "Elevation granted",
    "elevation.break_glass": "Break-glass access used",
    "incident.open": "Incident",
    "incident.alert": "Alert",
    "incident.release": "Incident: released",
    "incident.narrow": "Incident: released, reads only",
    "incident.decommission": "Incident: decommissioned",
    "respond.limited": "Automatic responses have reached their limit: a person must decide",
    "signal.flood": "A trusted issuer sends more signals than the limit",
    "cert.warn": "A certificate expires soon, or cannot be renewed",
    "lease.stuck": "An account behind a lease could not be removed",
    "account.break": "A provider has ended a connection: the person must connect the account again",
    "account.stuck": "A token of a connected account could not be revoked",
    "rotation.fail": "A secret could not be rotated: the old value stays in force",
    "clock.jump": "The wall clock of the server jumped",
    "database.full": "The disk of the database is full: only acts that stop something are carried out",
    "clock.accept": "The time of the server is confirmed",
    "history.lost": "The database lost a part of its history: the server is in recovery",
    "history.replay": "Stops of the lost part of the history were carried out again",
    "history.recover": "The recovery of the database has ended",
    "policy.weaken": "Safeguards of the server no longer apply",
    "kill.start": "Kill switch",
    "kill.end": "Kill switch: lifted",
}
"""The actions that a webhook receives by default, each with the title of its alert for people."""
DELAYS_S = (5, 30, 120, 600, 1800, 3600, 7200, 14_400, 28_800)
"""Seconds between the attempts to deliver an event; the last attempt follows the last delay, about 16 hours after the
first attempt.
"""
REJECTED_TRIES = 3
"""Number of attempts, of any outcome, after which a permanent error of the receiver gives a delivery up."""
LONGEST_DELAY_S = 3600
"""Maximum delay in seconds that the server accepts from a receiver's Retry-After."""
PAUSE_S = 10
"""Minimum seconds between two messages to people; the second message covers all events in between."""
TRY_S = 15
"""Maximum number of seconds for one attempt to deliver a message."""
WAITING_LIMIT = 1000
"""Maximum number of pending events that one message to people covers; from this number on, a webhook's queue counts as
full.
"""
STALLED_S = 60
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ACTION = re.compile(r"[a-z_]{1,32}(\.[a-z_]{1,32}){1,3}")


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook and the state of its deliveries. `next_idx` is the index of the first entry that is not yet handled.

    `attempts` and `due_at` (time of the next attempt) belong to the next event. `busy_until` is the end of the
    delivering process's claim. `delivered` and `lost` count events. Times are microseconds since the epoch.
    """

    webhook_id: WebhookId
    url: str
    actions: tuple[str, ...]
    created_at: int
    next_idx: int
    form: Form = "signed"
    attempts: int = 0
    due_at: int = 0
    busy_until: int = 0
    delivered: int = 0
    delivered_at: int | None = None
    lost: int = 0
    failed: str = ""
    """The error of the last attempt; empty after a success."""
    gone_at: int | None = None
    """The time at which the receiver answered 410 (gone); None if the receiver did not."""

    @property
    def is_for_people(self) -> bool:
        """Return whether the messages are for people, not for a program."""
        return self.form != "signed"

    def is_due(self, now: int) -> bool:
        """Return whether the next event may be sent at `now` (microseconds)."""
        return self.gone_at is None and now >= self.due_at and now >= self.busy_until


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of an attempt: the HTTP status (0 without a response), the error as a sentence, and the delay in
    seconds that the receiver asks for.
    """

    status: int
    failed: str = ""
    retry_after_s: int = 0

    @property
    def is_accepted(self) -> bool:
        """Return whether the receiver accepted the message."""
        return 200 <= self.status < 300

    @property
    def is_rejected(self) -> bool:
        """Return whether the receiver answered with a permanent error: a 4xx status, except statuses that may end
        without a change of the message (401, 403, 404, 408, 409, 425, 429).
        """
        return 400 <= self.status < 500 and self.status not in (401, 403, 404, 408, 409, 425, 429)


def outcome_of_mail(code: int) -> Outcome:
    """Return the outcome for an SMTP reply code: 2xx is success, 5xx a permanent error, any other code a temporary
    error.
    """
    status = 200 if 200 <= code < 300 else 400 if code >= 500 else 503
    return Outcome(status, f"the mail server answers {code}")


def check_form(url: str, form: Form) -> None:
    """Check that the form `mail` is used with a `mailto:` URL, and any other form with another URL. Raises Invalid
    otherwise.
    """
    if form == "mail" and not url.startswith(MAIL):
        raise Invalid("the form `mail` needs a URL mailto:ADDRESS", hint="for an https URL, use another --form")
    if form != "mail" and url.startswith(MAIL):
        raise Invalid(f"the form `{form}` does not work with a mail address", hint="use --form mail")


def origin(url: str) -> str:
    """Return the part of a URL that logs and lists may show: scheme and host, or the domain of a mail address. Path and
    query may contain a secret; a mail address is personal data.
    """
    if url.startswith(MAIL):
        return MAIL + "@" + url.rpartition("@")[2]
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def check_actions(actions: tuple[str, ...]) -> tuple[str, ...]:
    """Check that each action has the form of an action's name, such as `approval.ask`; return each once, or the default
    actions (`TITLES`) if there are none. An action that no entry has is accepted. Raises Invalid if the check fails.
    """
    if len(actions) > MAX_ACTIONS:
        raise Invalid(f"`events` names {len(actions)} actions; the limit is {MAX_ACTIONS}")
    if wrong := [action for action in actions if not _ACTION.fullmatch(action)]:
        hint = "name an action such as `approval.ask`"
        raise Invalid(f"the event {wrong[0][:64]!a} does not have the form of a ledger action", hint=hint)
    return tuple(dict.fromkeys(actions)) or tuple(TITLES)


def secret(server_secret: bytes, webhook: WebhookId) -> bytes:
    """Return the signing secret of a webhook: 32 bytes, derived from `server_secret` and the id."""
    return hmac.digest(server_secret, b"webhook|" + webhook.encode(), "sha256")


def show_secret(key: bytes) -> str:
    """Return the secret as text in the form that the libraries of Standard Webhooks read."""
    return "whsec_" + base64.b64encode(key).decode()


def message_id(webhook: WebhookId, index: int) -> str:
    """Return the id of the message about the entry `index`: the same id for each attempt."""
    return f"msg_{webhook.removeprefix('wh_')}_{index}"


def message(index: int, entry: Entry) -> bytes:
    """Return the JSON of a message to a program: `type`, `timestamp`, and `data`, the entry without arguments and
    facts, and, in a message of more than `MAX_BODY` bytes, also without detail and reasons.
    """
    public = msgspec.structs.replace(entry, arguments=None, facts=None, kept_facts=None)
    body = _body(index, public)
    return body if len(body) <= MAX_BODY else _body(index, msgspec.structs.replace(public, detail=None, reasons=[]))


def _body(index: int, entry: Entry) -> bytes:
    at = (_EPOCH + timedelta(microseconds=entry.at)).isoformat().replace("+00:00", "Z")
    data = {"index": index, **msgspec.to_builtins(entry)}
    return msgspec.json.encode({"type": entry.action, "timestamp": at, "data": data})


def headers(key: bytes, *, id: str, at: int, body: bytes) -> dict[str, str]:
    """Return the HTTP headers of a message, signed with `key`. `id`: the message id; `at`: seconds since the epoch.

    The signature is computed over id, time and body, joined by full stops (Standard Webhooks, section "Signature
    scheme").
    """
    signed = b".".join((id.encode(), str(at).encode(), body))
    signature = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return {"webhook-id": id, "webhook-timestamp": str(at), "webhook-signature": f"v1,{signature}"}


def after_failed_attempt(webhook: Webhook, outcome: Outcome, *, now: int, jitter: float) -> Webhook:
    """Return the webhook after a failed attempt: with the time of the next attempt or, if this was the last attempt,
    past the event, which counts as lost.

    `jitter`: 0 to 1; the delay grows by `jitter` tenths of its length.
    """
    attempts = webhook.attempts + 1
    most = REJECTED_TRIES if outcome.is_rejected else len(DELAYS_S) + 1
    if attempts >= most:
        return msgspec.structs.replace(
            webhook,
            next_idx=webhook.next_idx + 1,
            attempts=0,
            due_at=now,
            lost=webhook.lost + 1,
            failed=outcome.failed,
            busy_until=0,
        )
    delay = max(DELAYS_S[attempts - 1], min(outcome.retry_after_s, LONGEST_DELAY_S))
    due = now + round(delay * SECOND * (1 + jitter / 10))
    return msgspec.structs.replace(webhook, attempts=attempts, due_at=due, failed=outcome.failed, busy_until=0)


def after_delivery(webhook: Webhook, *, now: int, through: int, count: int) -> Webhook:
    """Return the webhook after the delivery of `count` events, of which entry `through` is the last."""
    return msgspec.structs.replace(
        webhook,
        next_idx=through + 1,
        attempts=0,
        due_at=now + PAUSE_S * SECOND if webhook.is_for_people else 0,
        busy_until=0,
        failed="",
        delivered=webhook.delivered + count,
        delivered_at=now,
    )
