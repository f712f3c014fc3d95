"""`act`: the one way to change anything. One act is one transaction, one instant and one entry.

The entry of a refused act stays though its effects are rolled back, and nobody is answered before it is durable. Only
a challenge leaves none: the act has not begun before the request comes again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ostiary.core.errors import Refused
from ostiaryd.ground.clock import ClockJumped
from ostiaryd.ground.database import Tx
from ostiaryd.ground.ids import new_id
from ostiaryd.ground.world import World
from ostiaryd.ground.writer import Raised
from ostiaryd.ledger import store
from ostiaryd.ledger.model import Entry, reason
from ostiaryd.ledger.sampling import RefusalSampler

T = TypeVar("T")
DAY = 86_400_000_000
FORGOTTEN_AT_ONCE = 5000
EVIDENCE_US = 600_000_000
"""Microseconds for which the proof of a reported call is kept: detectors look at a call within milliseconds."""


class Act:
    """What a flow gets: the transaction, its instant, and the entry to fill."""

    __slots__ = ("again", "entry", "now", "told", "tx")

    def __init__(self, tx: Tx, entry: Entry, again: object = None) -> None:
        self.tx = tx
        self.now = tx.now
        self.entry = entry
        self.told: list[Entry] = []
        """entries about what happened elsewhere, as somebody reports it; they stand if the act does"""
        self.again = again
        """what was found out since this same request was challenged for it; None where it comes for the first time"""

    def check_granting(self) -> None:
        """Raises ClockJumped while the server must not grant anything."""
        if not self.tx.is_granting:
            raise ClockJumped

    def new_id(self, prefix: str) -> str:
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
    """Run `flow` as one act named `action`; returns what it returns, raises what it raises, both after the commit."""
    keeps = world.config.replay_days > 0
    sampler = world.keep(Refusals).sampler if request is not None else None
    job = recorded(action, flow, request=request, keeps_facts=keeps, again=again, network=network, sampler=sampler)
    return await world.writer.submit(job)


class Refusals:
    """The budget for refusals of one server; see `sampling`."""

    def __init__(self, world: World) -> None:
        self._world, self.sampler = world, RefusalSampler()

    async def summarise(self, *, at_end: bool = False) -> None:
        """Append the summaries of a minute that is over; `at_end`: those of the present minute too."""

        def run(tx: Tx) -> None:
            for summary in self.sampler.take_summaries(tx.now, at_end=at_end):
                tx.defer(store.append, summary)

        await self._world.writer.submit(run)

    async def close(self) -> None:
        await self.summarise(at_end=True)


async def summarise_refusals(world: World) -> None:
    """Append the summaries of the refusals of a minute that is over."""
    await world.keep(Refusals).summarise()


async def forget_facts(world: World) -> int:
    """Forget facts that were kept as long as the configuration says, in small batches; up to which entry."""
    before = world.now() - world.config.replay_days * DAY

    def forget(tx: Tx) -> tuple[int, int]:
        oldest = store.oldest_facts(tx)
        first = store.first_since(tx, before)
        end = store.head(tx)[0].size if first is None else first
        done = end if oldest is None else min(end, oldest + FORGOTTEN_AT_ONCE)
        store.forget_facts(tx, before=done)
        return done, end

    while True:
        done, end = await world.writer.submit(forget)
        if done >= end:
            return end


async def forget_evidence(world: World) -> None:
    """Forget the proofs of calls that were reported more than `EVIDENCE_US` ago, in small batches."""

    def forget(tx: Tx) -> bool:
        store.forget_used_evidence(tx)
        first = store.first_since(tx, tx.now - EVIDENCE_US)
        before = store.head(tx)[0].size if first is None else first
        return store.forget_evidence(tx, before=before, count=FORGOTTEN_AT_ONCE)

    while await world.writer.submit(forget):
        pass


def recorded(
    action: str,
    flow: Callable[[Act], T],
    *,
    request: str | None = None,
    keeps_facts: bool = True,
    again: object = None,
    network: str = "",
    sampler: RefusalSampler | None = None,
) -> Callable[[Tx], T | Raised]:
    """Return the writer's job that runs `flow` and leaves its entry; `sampler` may count a refusal instead."""

    def job(tx: Tx) -> T | Raised:
        entry = Entry(at=tx.now, action=action, request=request, network=network or None)
        acting = Act(tx, entry, again)
        result: T | Raised
        try:
            with tx.savepoint():
                result = flow(acting)
        except Refused as refusal:
            if refusal.is_challenge:
                return Raised(refusal)
            acting.told.clear()
            entry.outcome = "refused"
            entry.reasons = [reason(refusal.code, refusal.message)]
            result = Raised(refusal)
        except Exception as error:  # noqa: BLE001 because an act that fails leaves its entry too; the caller gets the error
            acting.told.clear()
            entry.outcome = "error"
            entry.reasons = [reason("internal_error", type(error).__name__)]
            result = Raised(error)
        if sampler is not None and entry.outcome in ("refused", "error"):
            for summary in sampler.take_summaries(tx.now):
                tx.defer(store.append, summary)
            if not sampler.is_kept(entry):
                return result
        for left in (entry, *acting.told):
            if not keeps_facts:
                left.leave()
            tx.defer(store.append, left)
        return result

    return job
