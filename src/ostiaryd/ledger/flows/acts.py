"""The act: a change of the database with its ledger entry. One act is one transaction, one time and one entry.

A refused act writes an entry, too. A challenge, for example for a DPoP nonce, writes none. The caller gets the response
after the entry is durable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from ostiary.protocol.checkpoint import open_checkpoint
from ostiary.protocol.errors import Conflict, Refused, Unavailable
from ostiary.protocol.merkle import HASH_BYTES
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.database.line import overtaking
from ostiaryd.ground.database.pin import Head, HistoryLost, InRecovery
from ostiaryd.ground.database.server_keys import load_keys, replace_keys
from ostiaryd.ground.database.writer import Raised
from ostiaryd.ground.http.pages import Page
from ostiaryd.ground.process.clock import ClockJumped
from ostiaryd.ground.process.ids import new_id
from ostiaryd.ground.world import World
from ostiaryd.ledger import store
from ostiaryd.ledger.model import Entry, reason
from ostiaryd.ledger.model.sampling import RefusalSampler

T = TypeVar("T")
HOUR = 3_600_000_000
DAY = 24 * HOUR
PIN = "the pin of this server"
OPERATOR = "the operator"
IN_RECOVERY = frozenset(
    {
        "agent.decommission",
        "agent.expire",
        "agent.quarantine",
        "agent.revoke",
        "agent.suspend",
        "api.call",
        "approval.cancel",
        "approval.deny",
        "approval.expire",
        "authority.end",
        "authority.revoke",
        "cert.revoke",
        "clock.accept",
        "clock.jump",
        "clock.return",
        "clock.step",
        "database.damaged",
        "database.full",
        "database.has_space",
        "feed.report",
        "history.lost",
        "history.recover",
        "history.replay",
        "key.expire",
        "key.revoke",
        "kill.start",
        "owner.revoke",
        "person.end_session",
        "person.end_sessions",
        "person.expire_sessions",
        "person.leave",
        "person.logout",
        "person.reset_login",
        "person.revoke_key",
        "server.doctor",
        "signal.continue",
        "signal.receive",
        "state.differs",
        "stream.give_up",
        "stream.refused",
        "task.end",
        "task.expire",
        "task.revoke",
        "token.introspect",
        "token.issue",
        "token.revoke",
        "vault.seal",
        "watch.find",
        "watch.restart",
        "webhook.give_up",
    }
)
"""Actions that a server in recovery still carries out: each stops, reports or reads something. `token.issue` then
issues only tokens for the server's own API, so that administrators can stop agents and guards can deliver their
records.
"""

log = logging.getLogger("ostiary")
FORGOTTEN_AT_ONCE = 5000


class Act:
    """The argument of each flow: the transaction, the time of the act in microseconds, and the ledger entry that the
    flow fills.
    """

    __slots__ = ("again", "ending", "entry", "further_entries", "keeps_facts", "now", "tx")

    def __init__(self, tx: Tx, entry: Entry, again: object = None, *, keeps_facts: bool = True) -> None:
        self.tx = tx
        self.now = tx.now
        self.entry = entry
        self.further_entries: list[Entry] = []
        """entries about events that a reporter, such as a guard, states; they are written only if the act succeeds"""
        self.again = again
        """facts that were gathered after the first attempt of this act raised a challenge for them; None on the first
        attempt
        """
        self.keeps_facts = keeps_facts
        """true if facts beside the entries are stored; otherwise the facts are removed after the flow"""
        self.ending: Callable[[Act], None] | None = None
        """function that is called after the flow returns, in the same transaction; the flow does not see its changes"""

    def check_granting(self) -> None:
        """Check that the server may grant access now. Raises ClockJumped if the server's clock jumped."""
        if not self.tx.is_granting:
            raise ClockJumped

    def new_id(self, prefix: str) -> str:
        """Return a new id with `prefix` (`ag_`, `tk_`)."""
        return new_id(prefix, now=self.now, random=self.tx.random)


async def act(
    world: World,
    action: str,
    flow: Callable[[Act], T],
    *,
    request: str | None = None,
    again: object = None,
    network: str = "",
) -> T:
    """Run `flow` as an act: its changes and a ledger entry with the action `action` are committed together. After the
    commit, return the flow's result or raise the flow's error.

    `request` is the id of the HTTP request, `network` the network of the caller's address. `again`: facts that were
    gathered after a first attempt raised a challenge for them, which the flow finds in `Act.again`.
    """
    keeps = world.config.replay_days > 0
    sampler = world.get_singleton(Refusals).sampler if request is not None else None
    job = make_job(action, flow, request=request, keeps_facts=keeps, again=again, network=network, sampler=sampler)
    try:
        return await world.writer.submit(job)
    except HistoryLost as lost:
        if lost.missing is not None:
            await lose_history(world, lost.missing, source=PIN)
        raise
    except InRecovery:
        follow_recovery(world)
        raise


async def record_refusal(
    world: World, action: str, refusal: Refused, *, object: str, request: str, network: str
) -> NoReturn:
    """Record a refusal that was raised before an act began, then raise the refusal. `object`: the object of the
    request, as the caller claims without proof.

    Raised without an entry in the ledger: a challenge (a demand for a nonce or for a login), a refusal that an act has
    already recorded, and a refusal because the server is busy or cannot reach another server.
    """
    if refusal.is_recorded or refusal.is_challenge or isinstance(refusal, Unavailable):
        raise refusal

    def refuse(act: Act) -> NoReturn:
        act.entry.object = object[:200] or None
        raise refusal

    await act(world, action, refuse, request=request, network=network)


async def check_history(world: World) -> None:
    """Compare the database with the pin at the start of the server and after the end of a recovery.

    If entries are missing, the server enters recovery. If the database has recovered, the server leaves recovery.
    """
    follow_recovery(world)
    reader = world.db.read()
    world.pin.lost_at = max(world.pin.lost_at, store.lost_at(reader))
    if store.list_losses(reader):
        return
    pinned = world.pin.head
    if pinned is None or await world.db.scan(lambda reader: store.has_head(reader, pinned)):
        if world.pin.is_lost:
            load_keys(world.keys, reader)
        world.pin.is_lost = False
        world.pin.require_check()
    else:
        await lose_history(world, pinned, source=PIN)


def check_after_loss(world: World, reader: Reader) -> None:
    """Compare the database with the pin on each new connection that replaces a lost connection, in the thread that
    opened the connection.

    The new connection may lead to a replica that lags. If the database lacks the pinned head, the server grants and
    accepts nothing from now on, and the next round of the event loop records the loss. Every new connection reads the
    stored keys before this check. The check therefore makes the keyring refuse all tokens again, until a
    server has recorded the loss and replaced the keys.
    """
    head = world.pin.head
    if head is not None and not store.list_losses(reader) and not store.has_head(reader, head):
        world.pin.is_lost, world.pin.lost_at = True, world.now()
        world.keys.refuse_tokens()


async def sync_pin(world: World) -> None:
    """Write the pin to the disk. After `kill -9` the pin is complete without this call; after a power loss the pin has
    a head of the last minute.
    """
    await asyncio.to_thread(world.pin.sync)


def has_loss(reader: Reader) -> bool:
    """Return whether a server of this database has recorded a loss, and no recovery has ended it."""
    return bool(store.list_losses(reader))


def follow_recovery(world: World) -> bool:
    """Enter recovery if another server of this database has entered recovery; return whether this server is in
    recovery.

    The act that records a loss replaces the keys that sign tokens. A server that noticed the loss itself refuses all
    tokens until it reads the new keys here, because another server may have recorded the loss first.
    """
    is_new = not world.pin.is_lost or world.keys.refuses_tokens
    if is_new and store.list_losses(world.db.read()):
        world.pin.is_lost, world.pin.lost_at = True, store.lost_at(world.db.read())
        load_keys(world.keys, world.db.read())
        log.error("the database lost a part of its history: in recovery until an operator runs `ostiary recover`")
    return world.pin.is_lost


def present_history(reader: Reader) -> str:
    """Return the id of the ledger's present history: the history that no recovery has ended."""
    return next(id for id, has_ended in store.histories(reader).items() if not has_ended)


def read_head(unverified_note: bytes, *, reader: Reader, keys: Keyring) -> Head:
    """Return the head that a checkpoint of this log states.

    Raises Malformed for a malformed note, and Unsigned if this log has not signed the checkpoint: only a checkpoint
    with this log's signature is evidence.
    """
    key = store.get_log_key(reader, keys)
    checkpoint = open_checkpoint(unverified_note, [key], origin=key.name)
    return Head(key.public, checkpoint.history, checkpoint.size, checkpoint.root)


async def examine_head(world: World, head: Head, *, source: str) -> None:
    """Compare the database with a signed head that `source` (a guard, a client or a witness) has seen.

    Raises InRecovery if the server is in recovery. If the database does not contain the head, the server enters
    recovery first.
    """
    if not await world.db.scan(lambda reader: store.has_head(reader, head)):
        await lose_history(world, head, source=source)
    if world.pin.is_lost:
        raise InRecovery


async def declare_loss(world: World) -> None:
    """Enter recovery because an operator knows that entries are missing, although nothing shows a later head. In
    recovery, do nothing.

    The loss names a head after the last entry of the database, with a root that no tree has.
    """
    if world.pin.is_lost:
        return
    reader = world.db.read()
    key, size = store.get_log_key(reader, world.keys).public, store.get_head(reader)[0].size
    missing = Head(key, present_history(reader), size + 1, world.random(HASH_BYTES))
    await lose_history(world, missing, source=OPERATOR)


async def lose_history(world: World, head: Head, *, source: str) -> None:
    """Record durably that the database does not contain `head`, and enter recovery.

    From this moment on the server refuses every token. The act replaces the keys that sign tokens, so that no earlier
    token is accepted later. The pin keeps the missing head, so that a second restore of the same old copy is noticed
    too.
    """
    was_lost, world.pin.is_lost, world.pin.lost_at = world.pin.is_lost, True, world.now()
    if not was_lost:
        world.keys.refuse_tokens()
    losses = store.list_losses(world.db.read())
    if was_lost and any(loss.source == source and loss.head.size >= head.size for loss in losses):
        return  # the loss is already recorded: a guard sends its head each time that the guard connects

    def lose(act: Act) -> store.Loss:
        is_first = not store.list_losses(act.tx)
        loss = store.Loss(source, head, store.get_head(act.tx)[0].size, act.now)
        store.put_loss(act.tx, loss)
        if is_first:
            replace_keys(act.tx, act.tx.keys.root, use="token")
        pinned = act.tx.pin.head
        if pinned is None or store.has_head(act.tx, pinned):
            act.tx.pin.replace(head)
        act.entry.object = head.history
        act.entry.detail = describe_loss(loss)
        return loss

    with overtaking():
        loss = await act(world, "history.lost", lose)
    load_keys(world.keys, world.db.read())
    log.error("the database lost %s: in recovery until an operator runs `ostiary recover`", loss_in_words(loss))


def examine_history(world: World, reader: Reader) -> str:
    """Return a sentence about the state of the ledger's history: its id, and the pinned head.

    Raises Conflict if the database lacks entries.
    """
    hint = "run `ostiary recover` on the server's machine"
    if lost := store.list_losses(reader):
        replayed = ", ".join(f"{stop.kind} {stop.subject}" for stop in store.list_replayed(reader)[:5])
        missing = "; ".join(map(loss_in_words, lost[:3]))
        stops = f"lost stops that were applied again: {replayed or 'none'}"
        raise Conflict(f"the server is in recovery; missing: {missing}; {stops}", hint=hint)
    pinned = world.pin.head
    if pinned is not None and not store.has_head(reader, pinned):
        raise Conflict(
            f"the database lost entries: the pin file has a head of {pinned.size} entries, the database does not",
            hint=hint,
        )
    size = 0 if pinned is None else pinned.size
    return f"history {present_history(reader)[:12]}, the pinned head of {size} entries is in the tree"


def loss_in_words(loss: store.Loss) -> str:
    """Return a phrase with the range of the missing entries and the source that has seen them."""
    range_of_loss = describe_loss(loss)
    first, last = range_of_loss["from"], range_of_loss["to"] - 1
    return f"entries {first} (or earlier) to {last}, which {loss.source} has seen"


def describe_loss(loss: store.Loss) -> dict[str, Any]:
    """Return the members that describe a loss: `source`; `to`, the index after the last missing entry; `from`, the
    highest possible index of the first missing entry; `had`, the number of entries of the database at the detection.
    """
    return {"source": loss.source, "from": min(loss.ours, loss.head.size), "to": loss.head.size, "had": loss.ours}


class Refusals:
    """Limits the ledger entries that this server writes about refusals (`RefusalSampler`), and writes the summaries of
    the refusals without an entry.
    """

    def __init__(self, world: World) -> None:
        self._world, self.sampler = world, RefusalSampler()

    async def summarise(self, *, at_end: bool = False) -> None:
        """Append the summaries of the past minute's refusals that got no entry; with `at_end`, also those of the
        present minute.
        """

        def run(tx: Tx) -> None:
            for summary in self.sampler.take_summaries(tx.now, at_end=at_end):
                tx.defer(store.append, summary)

        await self._world.writer.submit(run)

    async def close(self) -> None:
        """Append the summaries of the present minute when the server ends."""
        await self.summarise(at_end=True)


async def summarise_refusals(world: World) -> None:
    """Append the summaries of the past minute's refusals that got no entry of their own."""
    await world.get_singleton(Refusals).summarise()


async def forget_facts(world: World) -> int:
    """Delete the facts of entries that are older than `replay_days`, in small batches; the entries stay. The facts are
    the decided request and the values on which its decision was based, for what-if. Return the index of the first entry
    whose facts may remain.
    """
    before = world.now() - world.config.replay_days * DAY

    def forget(tx: Tx) -> tuple[int, int]:
        oldest = store.oldest_facts(tx)
        first = store.find_first_since(tx, before)
        end = store.get_head(tx)[0].size if first is None else first
        done = end if oldest is None else min(end, oldest + FORGOTTEN_AT_ONCE)
        store.forget_facts(tx, before=done)
        return done, end

    while True:
        done, end = await world.writer.submit(forget)
        if done >= end:
            return end


async def keep_checkpoint(world: World) -> None:
    """Store the signed checkpoint if the last stored checkpoint is at least one hour old and the log has grown
    since.
    """
    reader = world.db.read()
    kept, size = store.checkpoints(reader, Page(1, "")), store.get_head(reader)[0].size
    if size and not (kept and (kept[0].size == size or world.now() - kept[0].at < HOUR)):
        await world.writer.submit(store.keep_checkpoint)


def make_job(
    action: str,
    flow: Callable[[Act], T],
    *,
    request: str | None = None,
    keeps_facts: bool = True,
    again: object = None,
    network: str = "",
    sampler: RefusalSampler | None = None,
) -> Callable[[Tx], T | Raised]:
    """Return the job for the database writer that runs `flow` as an act and defers its entry to the end of the batch.

    If `sampler` is given, `sampler` decides for each refusal whether an entry is written or the refusal is only
    counted. In recovery, the job refuses every action outside `IN_RECOVERY`.
    """

    def job(tx: Tx) -> T | Raised:
        if tx.pin.is_lost and action not in IN_RECOVERY:
            return Raised(InRecovery())
        entry = Entry(at=tx.now, action=action, request=request, network=network or None)
        acting = Act(tx, entry, again, keeps_facts=keeps_facts)
        result: T | Raised
        try:
            with tx.savepoint():
                result = flow(acting)
                if acting.ending is not None:
                    acting.ending(acting)
        except Refused as refusal:
            if refusal.is_challenge:
                return Raised(refusal)
            acting.further_entries.clear()
            entry.outcome = "refused"
            entry.reasons = [reason(refusal.code, refusal.message)]
            refusal.is_recorded = True
            result = Raised(refusal)
        except Exception as error:  # noqa: BLE001 because an act that fails leaves its entry too; the caller gets the error
            acting.further_entries.clear()
            entry.outcome = "error"
            entry.reasons = [reason("internal_error", type(error).__name__)]
            result = Raised(error)
        entries = [entry, *acting.further_entries]
        refused = [one for one in entries if one.is_refused]
        for one in refused:
            one.redact_credentials()
        if sampler is not None and refused:
            for summary in sampler.take_summaries(tx.now):
                tx.defer(store.append, summary)
            entries = [one for one in entries if not one.is_refused or sampler.is_kept(one)]
        if not entries:
            return result
        if tx.touched:
            entry.rows, tx.touched = dict.fromkeys(tx.touched, ""), []
        for left in entries:
            if not keeps_facts:
                left.remove_facts()
            tx.defer(store.append, left)
        return result

    return job
