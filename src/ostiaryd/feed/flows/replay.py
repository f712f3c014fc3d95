"""Replay of lost stops: stops that guards received and that a restored database lacks.

Guards keep the signed messages with stops. A message whose ledger head is not in the tree of this database comes from
the lost part, so its stops are carried out again. That can only narrow access: the server accepts only messages that it
has signed itself.
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
from ostiaryd.registry.model import State, Verb
from ostiaryd.tasks import flows as tasks

log = logging.getLogger("ostiary")

VERBS = {
    State.SUSPENDED.value: Verb.SUSPEND,
    State.QUARANTINED.value: Verb.QUARANTINE,
    State.DECOMMISSIONED.value: Verb.DECOMMISSION,
}


class Delivered(NamedTuple):
    """The result of the messages that a guard kept: the stops that were carried out, and the number of lines signed by
    no known key.
    """

    replayed: int
    unverified: int


class LostStop(NamedTuple):
    """A stop of the lost part. `at` is when the server sent it, in microseconds since the epoch."""

    kind: str
    subject: str
    at: int
    fact: Fact


async def replay_messages(
    world: World, unverified_lines: Iterable[bytes], *, resource_id: str, source: str
) -> Delivered:
    """Carry out the stops that signed messages of the feed contain and the database lacks.

    `resource_id`: the resource of the guard that kept them. Lines that this server has not signed are skipped. Lines
    with a head of the lost part but no known signature are counted, since their key may be lost too.
    """
    lines = list(unverified_lines)
    lost, unverified = await world.db.scan(
        lambda reader: lost_stops(reader, world.keys, lines, resource_id=resource_id)
    )
    if unverified:
        log.error("%s holds %d messages of the lost part that no known key has signed", source, unverified)
    if not lost:
        return Delivered(0, unverified)
    count = await ledger.act(world, "history.replay", lambda act: replay(act, lost, source=source))
    return Delivered(count, unverified)


def lost_stops(
    reader: Reader, keys: Keyring, unverified_lines: list[bytes], *, resource_id: str
) -> tuple[list[LostStop], int]:
    """Return the newest lost stop of each subject, in the order in which the server sent them, and the number of lines
    of the lost part that no known key has signed.

    The key of the feed may have been rotated in the lost part. The messages that announce a new key are therefore read
    first.
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
    """Return whether a line that no known key of the feed has signed has a head that this log has signed and lost."""
    try:
        return not is_known(_head_of(unverified_message(line), reader, keys))
    except Refused:
        return False


async def follow_history(world: World) -> None:
    """Enter and leave recovery with the other servers of the database; disconnect the guards of a history that has
    ended.
    """
    was_lost = world.pin.is_lost
    if ledger.follow_recovery(world):
        await ledger.check_history(world)
    if world.pin.is_lost and not was_lost:
        world.keep(Streams).cut_all()


def _head_of(message: Message, reader: Reader, keys: Keyring) -> Head:
    return ledger.read_head(message.head.encode(), reader=reader, keys=keys)


def replay(act: Act, lost: list[LostStop], *, source: str) -> int:
    """Carry out lost stops that were not replayed before; return their number. A stop whose subject is lost too is
    skipped.
    """
    done, missing = list[str](), list[str]()
    for stop in lost:
        if not ledger.put_replayed(act.tx, ledger.Replayed(stop.kind, stop.subject, stop.at, source, act.now)):
            continue
        try:
            with act.tx.savepoint():
                _carry_out(act, stop.fact, why=f"stopped in the lost part of the history, as {source} knows")
            done.append(f"{stop.kind} {stop.subject}")
        except Refused:
            missing.append(f"{stop.kind} {stop.subject}")
    act.entry.object = source
    act.entry.detail = {"source": source, "replayed": done[:100], "unknown": missing[:100], "count": len(done)}
    return len(done)


def _carry_out(act: Act, fact: Fact, *, why: str) -> None:
    """Carry out one lost stop. Raises Refused if the subject is unknown or already stopped."""
    match fact:
        case AgentFact(id, state, epoch):
            agent = registry.find_agent(act.tx, id)
            if verb := VERBS.get(state):
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
                registry.stop(act, what, value, why=why, by=None)
