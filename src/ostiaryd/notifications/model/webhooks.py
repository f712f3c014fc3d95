"""Webhooks: the actions that each receives, the signature of a message (Standard Webhooks 1.0.0), and the times of
retries.

An event is an entry of the ledger, so events are not stored twice: a webhook stores the index of its next entry. Events
are delivered in order. A failed delivery is retried; after the last attempt, the event is skipped and counted. Programs
get one message per event; people (`model/alerts.py`) get one message for all events that are due.
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
"""The format of messages: `signed` is for programs, all others are for people."""
MAIL = "mailto:"
SECOND = 1_000_000
MAX_WEBHOOKS = 20
MAX_ACTIONS = 32
MAX_BODY = 20_000
"""Bytes of a message; a larger one is sent without its detail."""
TEST = "webhook.test"
"""The action of a test event, which every webhook receives."""
HEARD = (
    "approval.ask",
    "approval.approve",
    "approval.deny",
    "approval.expire",
    "elevation.request",
    "elevation.grant",
    "elevation.break_glass",
    "incident.open",
    "incident.alert",
    "incident.release",
    "incident.narrow",
    "incident.decommission",
    "respond.limited",
    "signal.flood",
    "cert.warn",
    "lease.stuck",
    "account.break",
    "account.stuck",
    "rotation.fail",
    "clock.jump",
    "clock.accept",
    "history.lost",
    "history.replay",
    "history.recover",
    "policy.weaken",
    "kill.start",
    "kill.end",
)
"""The actions that a webhook receives by default."""
DELAYS_S = (5, 30, 120, 600, 1800, 3600, 7200, 14_400, 28_800)
"""Seconds between tries; one more try follows the last delay, about 16 hours after the first."""
REJECTED_TRIES = 3
"""Number of attempts if the receiver rejects the message for good."""
LONGEST_DELAY_S = 3600
"""Longest delay, in seconds, that a receiver may ask for."""
PAUSE_S = 10
"""Time between two messages to people; the second message has all events in between."""
TRY_S = 15
"""Seconds that a try may take."""
WAITING_LIMIT = 1000
"""Pending events of one webhook; with more, the queue counts as full."""
STALLED_S = 60
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ACTION = re.compile(r"[a-z_]{1,32}(\.[a-z_]{1,32}){1,3}")


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook. `next_idx` is the index of its next entry; `attempts` and `due_at` belong to that entry.

    `busy_until` is the end of the claim of the process that delivers now. Times in microseconds.
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
    """The error of the last try."""
    gone_at: int | None = None
    """The time at which the receiver answered that it is gone (410)."""

    @property
    def is_for_people(self) -> bool:
        """Return whether people read the messages."""
        return self.form != "signed"

    def is_due(self, now: int) -> bool:
        """Return whether the next event may be sent now."""
        return self.gone_at is None and now >= self.due_at and now >= self.busy_until


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of a try: status of the response (0: none), error in words, and the delay that the
    receiver asks for.
    """

    status: int
    failed: str = ""
    retry_after_s: int = 0

    @property
    def is_taken(self) -> bool:
        """Return whether the receiver accepted the message."""
        return 200 <= self.status < 300

    @property
    def is_rejected(self) -> bool:
        """Return whether the receiver refuses the message for good: 4xx, except for codes of temporary errors."""
        return 400 <= self.status < 500 and self.status not in (401, 403, 404, 408, 409, 425, 429)


def mailed(code: int) -> Outcome:
    """Return the outcome of an SMTP reply code: 5xx is a permanent failure, 4xx a temporary one."""
    status = 200 if 200 <= code < 300 else 400 if code >= 500 else 503
    return Outcome(status, f"the mail server answers {code}")


def check_form(url: str, form: Form) -> None:
    """Check that the format fits the URL. Raises Invalid."""
    if form == "mail" and not url.startswith(MAIL):
        raise Invalid("the form `mail` needs a URL of the form mailto:ADDRESS", hint="for https name another --form")
    if form != "mail" and url.startswith(MAIL):
        raise Invalid(f"a mail address does not take the form `{form}`", hint="--form mail")


def origin(url: str) -> str:
    """Return the part of a URL that may be shown. Path and query may hold a secret, and a mail address is personal
    data.
    """
    if url.startswith(MAIL):
        return MAIL + "@" + url.rpartition("@")[2]
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def check_actions(actions: tuple[str, ...]) -> tuple[str, ...]:
    """Check the actions of a webhook, and return each once, or the default ones. Raises Invalid."""
    if len(actions) > MAX_ACTIONS:
        raise Invalid(f"a webhook has at most {MAX_ACTIONS} events, not {len(actions)}")
    if wrong := [action for action in actions if not _ACTION.fullmatch(action)]:
        raise Invalid(f"the event {wrong[0][:64]!a} is no action of the ledger", hint="such as `approval.ask`")
    return tuple(dict.fromkeys(actions)) or HEARD


def secret(server_secret: bytes, webhook: WebhookId) -> bytes:
    """Return the signing secret of a webhook: 32 bytes, derived from `server_secret` and the id."""
    return hmac.digest(server_secret, b"webhook|" + webhook.encode(), "sha256")


def show_secret(key: bytes) -> str:
    """Return the secret in the form that Standard Webhooks libraries read."""
    return "whsec_" + base64.b64encode(key).decode()


def message_id(webhook: WebhookId, index: int) -> str:
    """Return the id of the message, the same for each try of one event."""
    return f"msg_{webhook.removeprefix('wh_')}_{index}"


def message(index: int, entry: Entry) -> bytes:
    """`type`, `timestamp`, `data`: the entry without its arguments and facts."""
    public = msgspec.structs.replace(entry, arguments=None, facts=None, kept_facts=None)
    body = _body(index, public)
    return body if len(body) <= MAX_BODY else _body(index, msgspec.structs.replace(public, detail=None, reasons=[]))


def _body(index: int, entry: Entry) -> bytes:
    at = (_EPOCH + timedelta(microseconds=entry.at)).isoformat().replace("+00:00", "Z")
    data = {"index": index, **msgspec.to_builtins(entry)}
    return msgspec.json.encode({"type": entry.action, "timestamp": at, "data": data})


def headers(key: bytes, *, id: str, at: int, body: bytes) -> dict[str, str]:
    """Return the headers of a signed message. `at`: seconds since the epoch.

    The signature covers id, time and body, joined by full stops (section "Signature scheme").
    """
    signed = b".".join((id.encode(), str(at).encode(), body))
    signature = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return {"webhook-id": id, "webhook-timestamp": str(at), "webhook-signature": f"v1,{signature}"}


def tried(webhook: Webhook, outcome: Outcome, *, now: int, jitter: float) -> Webhook:
    """Return the webhook after a failed attempt: the event is retried later, or skipped after the last attempt.

    `jitter`: 0 to 1; the delay grows by up to a tenth.
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


def record_delivery(webhook: Webhook, *, now: int, through: int, count: int) -> Webhook:
    """Return the webhook after `count` delivered events, the last of which is entry `through`."""
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
