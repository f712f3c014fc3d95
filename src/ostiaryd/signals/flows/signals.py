"""The signals that this server sends: each change in the feed that stops a subject becomes a signal to the
receivers.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ostiary.decision.access.stops import What
from ostiary.protocol.decoding import json_decoder
from ostiaryd.feed.model import parse_delta
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.world import World
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.model import decode_entry
from ostiaryd.policy.model import PolicyDelta
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows.feed import FEED_TOPIC
from ostiaryd.registry.model import (
    UNDO_VERBS,
    AgentDelta,
    AgentState,
    KeyDelta,
    ProfileDelta,
    ResourceDelta,
    RestrictionDelta,
    RiskDelta,
    SecretUseDelta,
    StopDelta,
    ThreatDelta,
    TokenDelta,
)
from ostiaryd.signals import store
from ostiaryd.signals.model.issuers import EFFECTS_TOPIC
from ostiaryd.signals.model.sets import Signal
from ostiaryd.signals.model.signals import (
    LOW,
    agent_stopped,
    key_revoked,
    level_changed,
    level_of,
    session_subject,
    subject_of_stop,
    subject_stopped,
    task_stopped,
)
from ostiaryd.signals.model.streams import KEPT, TOPIC
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskDelta, TaskState
from ostiaryd.tokens.model import KeysDelta

AT_ONCE = 100
ENTRIES = 64
"""Maximum number of ledger entries with the time of a change among which `_act` searches for the act that made the
change.
"""
_UNDO_ENDINGS = tuple(f".{verb}" for verb in UNDO_VERBS.values())
"""Endings of the actions that make a stopped agent active again."""
_encode = msgspec.json.Encoder().encode
_decode = json_decoder(Signal)


async def make_signals(world: World) -> int:
    """Make signals of the new changes in the guards' feed, such as a stopped agent; return the number of signals. While
    no stream exists, the changes are not read.
    """
    count = 0
    while await world.db.scan(store.streams.count):
        read, made = await world.writer.submit(lambda tx: make_some_signals(tx, world.config))
        count += made
        if read < AT_ONCE:
            break
    return count


def make_some_signals(tx: Tx, config: Config) -> tuple[int, int]:
    """Make signals of the next `AT_ONCE` changes in the feed; return the number of changes read and the number of
    signals made.
    """
    deltas = outbox.messages_after(tx, FEED_TOPIC, store.signals.position(tx), count=AT_ONCE)
    made = 0
    for _, at, body in deltas:
        for signal in _signals(tx, body, at, config):
            queue_signal(tx, signal)
            made += 1
    if deltas:
        store.signals.set_position(tx, deltas[-1][0])
    return len(deltas), made


async def send_lower_levels(world: World) -> int:
    """Queue a signal with the new risk level for each of at most `AT_ONCE` agents whose risk score has decayed to a
    lower level; return the number of signals.
    """
    now = world.now()

    def fallen(reader: Reader) -> list[str]:
        return [
            agent
            for agent, level in store.signals.levels(reader)
            if level_of(registry.get_risk(reader, agent).points(now)) != level
        ]

    def tell(tx: Tx) -> int:
        changed = [signal for agent in due for signal in _level(tx, agent, issuer=world.config.issuer)]
        for signal in changed:
            queue_signal(tx, signal)
        return len(changed)

    due = (await world.db.scan(fallen))[:AT_ONCE]
    return await world.writer.submit(tell) if due else 0


async def delete_old_signals(world: World) -> None:
    """Delete signals that are older than `KEPT`, and those unfinished effects of received signals that later acts have
    continued.
    """

    def delete(tx: Tx) -> None:
        outbox.prune(tx, TOPIC, before=tx.now - KEPT)
        continued = store.signals.position(tx, store.signals.EFFECTS)
        outbox.prune(tx, EFFECTS_TOPIC, before=tx.now - KEPT, through=continued)

    await world.writer.submit(delete)


def start_at_end_of_feed(tx: Tx) -> None:
    """Set the stored position to the present end of the guards' feed, so that earlier changes become no signals, and
    forget the risk levels that were sent.
    """
    store.signals.set_position(tx, outbox.highest_number(tx))
    store.signals.forget_levels(tx)


def queue_signal(tx: Tx, signal: Signal) -> None:
    """Store a signal for delivery to all streams that concern it."""
    outbox.emit(tx, TOPIC, _encode(signal))


def list_signals(reader: Reader, after: int, *, count: int) -> list[tuple[int, int, Signal]]:
    """Return at most `count` signals with numbers above `after`, oldest first, as (number, time in microseconds,
    signal).
    """
    return [
        (number, at, _decode(body)) for number, at, body in outbox.messages_after(reader, TOPIC, after, count=count)
    ]


def _signals(tx: Tx, body: bytes, at: int, config: Config) -> list[Signal]:
    """Return the signals of a change in the feed. Changes that stop no subject have none, and neither does the end of
    one token.
    """
    issuer = config.issuer
    match parse_delta(body):
        case AgentDelta() as delta:
            return _agent(tx, delta, at, issuer=issuer)
        case TaskDelta(id):
            return _task(tx, id, at, issuer=issuer)
        case KeyDelta(jkt) if (key := registry.get_key(tx, jkt)) is not None:
            done = _act(tx, at, jkt)
            return [key_revoked(issuer, key.agent, jkt, at=at, txn=done.txn, why=done.why)]
        case RiskDelta(subject) if subject.startswith("ag_"):
            return _level(tx, subject, issuer=issuer)
        case StopDelta(what, value, is_lifted=False):
            return _stop(tx, what, value, at, config)
        case TokenDelta() | KeyDelta() | RiskDelta() | StopDelta() | RestrictionDelta() | SecretUseDelta():
            return []
        case ThreatDelta() | ProfileDelta() | ResourceDelta() | PolicyDelta() | KeysDelta():
            return []


def _agent(tx: Tx, delta: AgentDelta, at: int, *, issuer: str) -> list[Signal]:
    """Return the signal that an agent was stopped; none for other changes. A resume or a release has no signal, since
    CAEP has no event for the end of a stop.
    """
    done = _act(tx, at, delta.agent)
    if delta.epoch == 0 or (delta.state is AgentState.ACTIVE and done.why.endswith(_UNDO_ENDINGS)):
        return []
    return [agent_stopped(issuer, delta.agent, state=delta.state, at=at, txn=done.txn, why=done.why)]


def _task(tx: Tx, id: str, at: int, *, issuer: str) -> list[Signal]:
    """Return the signal that an agent's task was ended by another party than the agent.

    If an agent ends its own task, there is no signal, because an agent could flood the receivers. If the agent itself
    was stopped, the signal of the agent's stop is enough.
    """
    task = tasks.get_task(tx, id)
    if task is None or task.state is not TaskState.CANCELLED:
        return []
    doer, done = registry.get_agent(tx, task.agent), _act(tx, at, id)
    if doer is None or doer.state is not AgentState.ACTIVE or done.by == task.agent:
        return []
    return [task_stopped(issuer, task.agent, id, at=at, txn=done.txn, why=done.why)]


def _stop(tx: Tx, target_kind: What, value: str, at: int, config: Config) -> list[Signal]:
    """Return the signal of a stop by the kill switch; none if the stopped task does not exist."""
    done = _act(tx, at, value or target_kind)
    if target_kind != "task":
        subject = subject_of_stop(config.issuer, config.trust_domain, target_kind, value)
    elif (task := tasks.get_task(tx, value)) is not None:
        subject = session_subject(config.issuer, task.agent, value)
    else:
        return []
    return [subject_stopped(subject, at=at, txn=done.txn, why=done.why)]


def _level(tx: Tx, agent: str, *, issuer: str) -> list[Signal]:
    """Return the signal of an agent's new risk level; none if the receivers know this level already."""
    was, level = store.signals.level(tx, agent) or LOW, level_of(registry.get_risk(tx, agent).points(tx.now))
    if was == level:
        return []
    store.signals.set_level(tx, agent, None if level == LOW else level)
    return [level_changed(issuer, agent, was=was, level=level, at=tx.now)]


class _Done(NamedTuple):
    """The act behind a change: `txn`, the index of its entry; `why`, its action; `by`, the agent that acted."""

    txn: str
    why: str
    by: str | None


_UNKNOWN = _Done("", "changed", None)


def _act(tx: Tx, at: int, object: str) -> _Done:
    """Return the act behind a change at time `at`.

    Acts that commit in one batch have the same time. Among them, return the last act about the changed object; if there
    is none, the only act with this time; if there are several, an unknown act.
    """
    first = ledger.find_first_since(tx, at)
    bodies = [] if first is None else ledger.list_entry_bodies(tx, first, ENTRIES)
    entries = [(index, body, decode_entry(body)) for index, body in enumerate(bodies, first or 0)]
    entries = [one for one in entries if one[2].at == at and one[2].outcome == "ok"]
    about = [one for one in entries if one[2].object == object] or [one for one in entries if object.encode() in one[1]]
    if not about and len(entries) != 1:
        return _UNKNOWN
    index, _, entry = (about or entries)[-1]
    return _Done(str(index), entry.action, entry.agent)
