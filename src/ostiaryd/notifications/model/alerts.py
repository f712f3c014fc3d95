"""Alerts: events in words for people, as mail or in the format of a chat.

Unauthenticated parties and agents choose some of the words (reasons, descriptions). Therefore no text becomes markup, a
mention, a link or a new line, and arguments and facts of entries are left out. If many events are pending, the message
describes the gravest events and counts the others, so that a flood of events cannot hide a grave one.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any, Literal

import msgspec

from ostiaryd.approvals.model import REQUEST_ACTIONS
from ostiaryd.ledger.model import Entry
from ostiaryd.notifications.model.webhooks import TEST, TITLES, Form

IN_WORDS = 10
"""Maximum number of events that one message describes; further events are only counted."""
MAX_WORD = 300
MAX_WORDS = 8
"""Maximum number of reasons, of members of an entry's detail, and of items of one list that an alert shows."""
MAX_TEXT = 2900
"""Maximum number of characters of a message; Slack accepts 3000 in a block of text, the other chats accept more."""
_GRAVE = (
    *("incident.", "kill.", "respond.", "elevation.break_glass", "clock.jump", "database.full", "history."),
    "policy.weaken",
    TEST,
)
_TEST_TITLE = "Test message: alerts arrive here"
_NEXT = {
    "approval": "ostiary approvals show",
    "incident": "ostiary incident show",
    **dict.fromkeys(REQUEST_ACTIONS, "ostiary approvals show"),
}
"""The command that shows the object of an entry, by the entry's action or by the first part of the action."""
_DOT = re.compile(r"(?<=\w)\.(?=[^\W\d_])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Alert(msgspec.Struct, frozen=True):
    """The description of one event: its title, and pairs (label, text) with details. Each text is plain text."""

    title: str
    lines: tuple[tuple[str, str], ...]


def select_gravest(events: list[tuple[int, str]]) -> list[int]:
    """Return the ledger indexes of the events that a message describes, at most `IN_WORDS`: grave events before other
    events, and in each group older events first.
    """
    ranked = sorted(events, key=lambda event: not event[1].startswith(_GRAVE))
    return [index for index, _ in ranked[:IN_WORDS]]


def alert(index: int, entry: Entry, *, agent: str, owner: str, link: str = "") -> Alert:
    """Return the alert about an entry. `index` is the index of the entry; `agent` and `owner` are names, empty if the
    entry has none. `link` is the URL of the page that shows the entry's object, empty if there is none.
    """
    title = _TEST_TITLE if entry.action == TEST else TITLES.get(entry.action, entry.action)
    at = (_EPOCH + timedelta(microseconds=entry.at)).strftime("%Y-%m-%d %H:%M:%S UTC")
    kind = entry.action.partition(".")[0]
    command = _NEXT.get(entry.action, _NEXT.get(kind))
    stopped = plain_text(f"{(entry.detail or {}).get('kill', '')} {entry.object or ''}") if kind == "kill" else ""
    lines = [
        ("stopped", stopped),
        ("by" if stopped else "agent", f"{agent} {entry.agent}".strip() if entry.agent else ""),
        ("owner", owner or entry.owner or ""),
        ("person", entry.person or ""),
        ("task", entry.task or ""),
        ("tool", plain_text(entry.tool or "")),
        *(("why", plain_text(f"{reason.code}: {reason.message}")) for reason in entry.reasons[:MAX_WORDS]),
        *_detail_lines(entry.detail or {}),
        ("at", f"{at}, entry {index}"),
        ("see", f"{command} {entry.object}" if command and entry.object else f"ostiary audit show {index}"),
        ("open", link),
    ]
    about = stopped or agent
    return Alert(f"{title}: {about}" if about else title, tuple(line for line in lines if line[1]))


def _detail_lines(detail: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (name, text) for the first members of the detail that are text, numbers or lists of text."""
    lines: list[tuple[str, str]] = []
    for name, value in list(detail.items())[:MAX_WORDS]:
        match value:
            case bool() | int() | float() | str():
                lines.append((plain_text(name), plain_text(str(value))))
            case [*items] if all(isinstance(item, str) for item in items):
                lines += [(plain_text(name), plain_text(item)) for item in items[:MAX_WORDS]]
    return lines


def plain_text(text: str) -> str:
    """Return at most `MAX_WORD` characters of `text` on one line, without characters that hide or reorder letters. Dots
    in names, `://` and `@` are replaced, so that a mail reader makes no link.
    """
    shown = "".join(c if c.isprintable() else " " for c in text[:MAX_WORD])
    return _DOT.sub("[.]", shown.replace("://", "[://]").replace("@", "(at)")).strip()


def subject(alerts: list[Alert], events: list[tuple[int, str]]) -> str:
    """Return the subject line: the title of the first alert, and the number of further events."""
    more = len(events) - 1
    return alerts[0].title + (f" and {more} more" if more else "")


def text(alerts: list[Alert], events: list[tuple[int, str]]) -> str:
    """Return the whole message as plain text: the alerts that fit in `MAX_TEXT` characters and, if these do not
    describe all `events`, the number of events by action.
    """
    parts = ["\n".join((alert.title, *(f"  {label:<9} {which}" for label, which in alert.lines))) for alert in alerts]
    kept: list[str] = []
    for part in parts:
        if kept and len("\n\n".join((*kept, part))) > MAX_TEXT - 500:
            break
        kept.append(part[: MAX_TEXT - 500])
    if len(events) > len(kept):
        counts = Counter(action for _, action in events).most_common(MAX_WORDS)
        all_of_it = ", ".join(f"{count} {action}" for action, count in counts)
        kept.append(f"In all since entry {events[0][0]}: {all_of_it}\n  see       ostiary audit search")
    return "\n\n".join(kept)[:MAX_TEXT]


def chat(form: Form, subject: str, text: str) -> tuple[str, bytes]:
    """Return the media type and the body of the POST request that sends a message to a chat's incoming webhook. Raises
    ValueError for the forms `signed` and `mail`, which are not chats.
    """
    match form:
        case "slack":
            return _json(
                {
                    "text": subject.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
                    "blocks": [_slack("header", subject[:150]), _slack("section", text)],
                }
            )
        case "teams":
            body = [_card(subject, weight="Bolder", size="Medium"), *(_card(line) for line in text.split("\n") if line)]
            card = {"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard"}
            content = {**card, "version": "1.2", "body": body}
            kind = "application/vnd.microsoft.card.adaptive"
            return _json({"type": "message", "attachments": [{"contentType": kind, "content": content}]})
        case "mattermost":
            return _json({"text": "```\n" + f"{subject}\n\n{text}".replace("`", "'") + "\n```"})
        case "plain":
            return "text/plain; charset=utf-8", f"{subject}\n\n{text}\n".encode()
        case "signed" | "mail":
            raise ValueError(f"`{form}` is not a form of chat messages")


def _json(value: dict[str, Any]) -> tuple[str, bytes]:
    return "application/json", msgspec.json.encode(value)


def _slack(kind: Literal["header", "section"], text: str) -> dict[str, Any]:
    """Return a Slack block of plain text; Slack interprets no markup in such a block."""
    return {"type": kind, "text": {"type": "plain_text", "text": text, "emoji": False}}


def _card(line: str, **looks: str) -> dict[str, Any]:
    """Return one line of an Adaptive Card. The line is a `TextRun`, whose text is plain; a `TextBlock` would be read as
    Markdown.
    """
    run = {"type": "TextRun", "text": line, **looks}
    return {"type": "RichTextBlock", "spacing": "None", "inlines": [run]}


def mail(subject: str, text: str, *, sender: str, to: str, id: str, at: int) -> EmailMessage:
    """Return a mail. `id` is the message id, the same for each attempt; `at` is the date, in microseconds since the
    epoch. Headers suppress automatic replies (RFC 3834).
    """
    message = EmailMessage()
    message["From"], message["To"] = sender, to
    message["Subject"] = f"[Ostiary] {subject}"[:200]
    message["Date"] = _EPOCH + timedelta(microseconds=at)
    message["Message-ID"] = f"<{id}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text + "\n")
    return message
