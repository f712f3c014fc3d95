"""Replay of lost stops: stops that guards received, and that a restored database lacks.

Guards keep the signed messages that contain stops. If the database's tree lacks the ledger head in a message, the
message was sent in the lost part of the history; the server then carries out its stops again. A replay can only narrow
access, and the server accepts only messages that it has signed itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

from ostiary.decision.feed import (
    AgentFact,
    Fact,
    KeyFact,
    Message,
    StopFact,
    TaskFact,
    TokenFact,
    announced_keys,
    parse_message,
    stops_in,
    unverified_message,
)
from ostiary.protocol.errors import Refused
from ostiary.protocol.jose import JwkSet, PublicKey
from ostiaryd.feed.flows.streams import Streams
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ground.database.pin import Head
from ostiaryd.ground.world import World
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import STOP_VERBS
from ostiaryd.tasks import flows as tasks

log = logging.getLogger("ostiary")
_STOP_VERBS = {str(state): verb for state, verb in STOP_VERBS.items()}


class Delivered(NamedTuple):
    """The result of a replay: `replayed`, the number of stops that were carried out, and `unverified`, the number of
    messages of the lost part that no known key has signed.
    """

    replayed: int
    unverified: int


class LostStop(NamedTuple):
    """A stop of the lost part of the history. `at`: when the server first sent the stop, in microseconds since the
    epoch.
    """

    kind: str
    subject: str
    at: int
    fact: Fact


async def replay_messages(
    world: World, unverified_lines: Iterable[bytes], *, resource_id: str, source: str
) -> Delivered:
    """Carry out the stops that signed messages of the feed contain and that the database lacks; return the numbers.

    `resource_id` is the resource of the guard that kept the messages (one per line); `source` names the guard. A line
    without a valid signature is skipped. A skipped line that states a ledger head of the lost part counts as
    unverified, since the key that signed it may be lost too.
    """
    lines = list(unverified_lines)
    lost, unverified = await world.db.scan(
        lambda reader: lost_stops(reader, world.keys, lines, resource_id=resource_id)
    )
    if unverified:
        log.error("%s has %d messages of the lost part of the history that no known key has signed", source, unverified)
    if not lost:
        return Delivered(0, unverified)
    count = await ledger.act(world, "history.replay", lambda act: replay(act, lost, source=source))
    return Delivered(count, unverified)


def lost_stops(
    reader: Reader, keys: Keyring, unverified_lines: list[bytes], *, resource_id: str
) -> tuple[list[LostStop], int]:
    """Return the newest lost stop of each subject, in the order in which the server sent the stops, and the number of
    lines of the lost part that no known key has signed.

    A message that announces a new key of the feed adds the key for the lines after it, because the rotation of the key
    may be lost too.
    """
    feed_keys: dict[str, PublicKey] = dict(keys.public("feed"))
    unverified = 0
    is_known = lru_cache(maxsize=None)(lambda head: ledger.has_tree(reader, head))
    newest: dict[tuple[str, str], LostStop] = {}
    for line in unverified_lines:
        try:
            message = parse_message(line, keys=JwkSet(tuple(feed_keys.values())))
            head = _head_of(message, reader, keys)
        except Refused:
            unverified += _is_of_lost_part(line, reader, keys, is_known)
            continue
        if (announced := announced_keys(message)) is not None:
            feed_keys |= {key.kid: key for key in announced.keys}
        if message.aud not in ("", resource_id) or is_known(head):
            continue
        for (kind, subject), fact in stops_in(message).items():
            if (previous := newest.get((kind, subject))) is None or previous.at <= message.at:
                newest[kind, subject] = LostStop(kind, subject, message.at, fact)
    return sorted(newest.values(), key=lambda stop: stop.at), unverified


def _is_of_lost_part(line: bytes, reader: Reader, keys: Keyring, is_known: Callable[[Head], bool]) -> bool:
    """Return whether a line without a known signature states a ledger head that this log has signed and this database
    lacks.
    """
    try:
        return not is_known(_head_of(unverified_message(line), reader, keys))
    except Refused:
        return False


async def follow_history(world: World) -> None:
    """Enter or leave recovery together with the other servers of the database. When this server enters recovery,
    disconnect its guards.
    """
    was_lost = world.pin.is_lost
    if (world.pin.is_lost or await world.db.scan(ledger.has_loss)) and ledger.follow_recovery(world):
        await ledger.check_history(world)
    if world.pin.is_lost and not was_lost:
        world.get_singleton(Streams).cut_all()


def _head_of(message: Message, reader: Reader, keys: Keyring) -> Head:
    return ledger.read_head(message.head.encode(), reader=reader, keys=keys)


def replay(act: Act, lost: list[LostStop], *, source: str) -> int:
    """Carry out the lost stops that no earlier replay has carried out; return their number. A stop is skipped, and
    named in the entry, if its subject (agent, task, token or key) is lost too or is already stopped.
    """
    done, missing = list[str](), list[str]()
    for stop in lost:
        if not ledger.put_replayed(act.tx, ledger.Replayed(stop.kind, stop.subject, stop.at, source, act.now)):
            continue
        try:
            with act.tx.savepoint():
                _carry_out(act, stop.fact, why=f"stopped in the lost part of the history, according to {source}")
            done.append(f"{stop.kind} {stop.subject}")
        except Refused:
            missing.append(f"{stop.kind} {stop.subject}")
    act.entry.object = source
    act.entry.detail = {"source": source, "replayed": done[:100], "unknown": missing[:100], "count": len(done)}
    return len(done)


def _carry_out(act: Act, fact: Fact, *, why: str) -> None:
    """Carry out one lost stop. Raises Refused if the subject is unknown or is already stopped."""
    match fact:
        case AgentFact(id, state, epoch):
            agent = registry.find_agent(act.tx, id)
            if verb := _STOP_VERBS.get(state):
                registry.set_agent_state(act, agent.agent_id, verb, why=why)
            elif epoch > agent.epoch:
                registry.renew_tokens(act, agent, why=why)
        case TaskFact(id):
            tasks.revoke(act, tasks.RevokedKind.TASK, id)
        case TokenFact(id):
            tasks.revoke(act, tasks.RevokedKind.TOKEN, id)
        case KeyFact(jkt):
            registry.revoke_key(act, jkt, why=why)
        case StopFact(what, value, is_lifted):
            if not is_lifted:
                registry.stop(act, what, value, why=why, by=None, restores=True)
