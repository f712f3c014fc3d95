"""Converts entries of the ledger to events: acts of agents, with facts from the catalogue.

Acts that other parties perform on an agent, and acts of the server itself (an expiry, a finding), are left out. The
times of events never decrease: an event with an earlier time gets the time of the event before it. For a report that a
guard delivers late, the time is the arrival, and the event states the delay.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from ostiary.protocol.decoding import json_decoder
from ostiary.provenance.noticing import Event, Noticed

MAX_PENDING = 1 << 15
"""Maximum number of reported calls that wait for their late result."""
MAX_SHAPE = 256
JUDGE = "watch.judge"
_OWN = ("watch.", "incident.", "respond.", "server.", "webhook.", "cert.warn", "approval.")
"""Beginnings of actions whose entries name an agent that did not act itself, so that they are no events of the agent:
approval requests have the key and the network of a guard, and their answers those of a person.
"""
_RESULT = "tool.result"


class ToolSeen(NamedTuple):
    """The facts about a tool from the catalogue: its effect, its data classes, and whether it is a decoy."""

    effect: str = ""
    classes: tuple[str, ...] = ()
    canary: bool = False


class _Result(msgspec.Struct):
    bytes: int | None = None
    records: int | None = None


class _Reason(msgspec.Struct):
    code: str


class _Detail(msgspec.Struct):
    """The additional members of an entry that reports a call."""

    spool: str = ""
    number: int = 0
    at: int | None = None
    call: int | None = None
    actors: tuple[str, ...] = ()
    origins: dict[str, Any] = {}
    noticed: Annotated[tuple[Noticed, ...], Meta(max_length=16)] = ()
    threat: tuple[str, int] | None = None
    approval: str = ""


class _SecretDetail(msgspec.Struct):
    canary: bool = False


class _Entry(msgspec.Struct):
    """The members of a ledger entry that this module reads (see `ostiaryd.ledger.model`). Decoding only these members
    takes half the time.
    """

    at: int
    action: str
    outcome: str = "ok"
    agent: str | None = None
    owner: str | None = None
    actors: tuple[str, ...] = ()
    task: str | None = None
    resource: str | None = None
    tool: str | None = None
    object: str | None = None
    data_classes: tuple[str, ...] = ()
    key: str | None = None
    network: str | None = None
    arguments: dict[str, Any] | None = None
    reasons: tuple[_Reason, ...] = ()
    result: _Result | None = None
    reporter: str | None = None
    detail: msgspec.Raw = msgspec.Raw()


class FindingJudgement(msgspec.Struct, frozen=True):
    """A person's verdict on findings about an agent: the detectors that made the findings, and whether the findings are
    real.
    """

    agent: str
    detectors: tuple[str, ...]
    is_real: bool
    number: int = -1
    tasks: int = 1
    """Number of different tasks that the findings are about."""


class _Judge(msgspec.Struct):
    detectors: tuple[str, ...] = ()
    is_real: bool = False
    tasks: int = 1


_entry = json_decoder(_Entry)
_detail = json_decoder(_Detail)
_judge = json_decoder(_Judge)
_secret_detail = json_decoder(_SecretDetail)


class Reading:
    """A reader that converts entries to events, in the order of the ledger."""

    def __init__(
        self,
        *,
        tool_of: Callable[[str, str], ToolSeen],
        model_of: Callable[[str], str],
        threat_of: Callable[[str], tuple[str, int] | None] = lambda network: None,
        place_of: Callable[[str], tuple[float, float] | None] = lambda network: None,
        changed: Callable[[str, str], None] = lambda action, object: None,
        now: int = 0,
    ) -> None:
        """Set the sources of facts.

        `tool_of` returns the facts about a tool by the resource's URI and the tool's id; `model_of` the model of an
        agent; `threat_of` and `place_of` the threat list and the place of a network. `changed` is called with the
        action and the object of each administrator's change. `now` is the time of the newest event before, in
        microseconds.
        """
        self._tool_of, self._model_of, self._changed = tool_of, model_of, changed
        self._threat_of, self._place_of, self._now = threat_of, place_of, now
        self.failed = ""
        """Number of the last entry that could not be read, and the error; empty if there is none."""
        self._pending: OrderedDict[tuple[str, int], Event] = OrderedDict()

    def read(self, number: int, body: bytes) -> Event | FindingJudgement | None:
        """Return the event (for the detectors) or the person's verdict in the ledger entry `number`; None if the entry
        contains neither.
        """
        try:
            entry = _entry(body)
        # an unreadable entry is a defect of this program, and must not stop the others
        except msgspec.DecodeError as error:
            self.failed = f"entry {number}: {error}"[:200]
            return None
        action = entry.action
        if action == JUDGE and entry.outcome == "ok":
            judgement = _judge(entry.detail)
            return FindingJudgement(entry.agent or "", judgement.detectors, judgement.is_real, number, judgement.tasks)
        if action.startswith(("agent.", "resource.", "threats.")):
            self._changed(action, entry.object or "")
        if (action.startswith(_OWN) and not _is_backchannel(entry)) or action.endswith(".expire"):
            return None
        if entry.reporter is not None:
            return self._reported(number, entry)
        if entry.agent is None:
            return None
        return self._event(number, entry, _Detail())

    def _reported(self, number: int, entry: _Entry) -> Event | None:
        """Return the event of a guard's report. A result that arrives later returns an event like that of its call,
        with the size of the result; None if the call is unknown.
        """
        try:
            detail = _detail(entry.detail) if entry.detail else _Detail()
        except msgspec.ValidationError:  # another kind of action, whose members have a different meaning
            detail = _Detail()
        if entry.action == _RESULT:
            call = self._pending.pop((detail.spool, detail.call or 0), None)
            if call is None or entry.result is None:
                return None
            result = entry.result
            return msgspec.structs.replace(
                call,
                at=self._at(entry),
                late=0,
                canary=False,
                action=_RESULT,
                outcome="ok",
                bytes=result.bytes or 0,
                records=result.records or 0,
                noticed=(),
                number=number,
            )
        event = self._event(number, entry, detail)
        if entry.tool is not None and entry.outcome == "allow" and entry.result is None:
            self._pending[detail.spool, detail.number] = event
            if len(self._pending) > MAX_PENDING:
                self._pending.popitem(last=False)
        return event

    def _event(self, number: int, entry: _Entry, detail: _Detail) -> Event:
        agent, tool, resource, result = entry.agent or "", entry.tool or "", entry.resource or "", entry.result
        facts = self._tool_of(resource, tool) if tool else ToolSeen()
        is_read = (
            entry.reporter is None and entry.action.startswith("vault.") and entry.outcome == "ok" and entry.detail
        )
        origins = detail.origins.get("origin")
        return Event(
            at=self._at(entry),
            late=0 if detail.at is None else max(0, entry.at - detail.at),
            action=entry.action,
            outcome=entry.outcome,
            agent=agent,
            task=entry.task or "",
            owner=entry.owner or "",
            resource=resource,
            tool=tool,
            effect=facts.effect,
            canary=facts.canary or bool(is_read and _secret_detail(entry.detail).canary),
            classes=entry.data_classes or facts.classes,
            origins=_origins(origins) if isinstance(origins, dict) else (),
            worst=_word(detail.origins.get("origin_worst")),
            links=_word(detail.origins.get("links_worst")),
            shape=shape(entry.arguments) if entry.arguments else "",
            reasons=tuple(reason.code for reason in entry.reasons),
            is_asked=detail.approval != "",
            bytes=0 if result is None else result.bytes or 0,
            records=0 if result is None else result.records or 0,
            key=entry.key or "",
            network=entry.network or "",
            place=self._place_of(entry.network) if entry.network else None,
            threat=self._threat_of(entry.network) if entry.network else detail.threat,
            actors=entry.actors or detail.actors,
            reporter="" if entry.reporter is None else resource or entry.reporter,
            model=self._model_of(agent) if agent else "",
            noticed=detail.noticed,
            number=number,
        )

    def _at(self, entry: _Entry) -> int:
        self._now = max(self._now, entry.at)
        return self._now


def _is_backchannel(entry: _Entry) -> bool:
    """Return whether an entry is an approval request that the agent itself sent to the server (CIBA). Entries of all
    other approval requests and of their answers have a reporter or a task.
    """
    return entry.action == "approval.ask" and entry.reporter is None and entry.task is None


def shape(arguments: dict[str, Any]) -> str:
    """Return the names and types of a call's arguments as text, for example `limit:int path:str`."""
    return " ".join(f"{name}:{type(arguments[name]).__name__}" for name in sorted(arguments))[:MAX_SHAPE]


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _origins(origins: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name, origin) for name, origin in sorted(origins.items()) if isinstance(origin, str))
