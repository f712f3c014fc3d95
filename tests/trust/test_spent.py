"""The store of used proofs: looked up in memory, and written as a log that other and later processes read."""

from __future__ import annotations

import pytest

from harness.clock import START, Clock
from ostiaryd.ground.database import Tx, sql
from ostiaryd.ground.world import World, open_world
from ostiaryd.trust import flows, store
from ostiaryd.trust.model import SPAN, Spend, Spent

COUNT = sql("select count(*), max(seq) from spent")


def proof(number: int, *, until: int = START + SPAN) -> Spend:
    return Spend(number.to_bytes(16), until, made=START)


async def spend(world: World, *numbers: int) -> list[bool]:
    return await world.writer.submit(lambda tx: [store.proofs.spend(tx, proof(number)) for number in numbers])


async def test_a_used_proof_is_refused_in_the_same_batch_and_in_later_batches(world: World) -> None:
    assert await spend(world, 1, 2, 1) == [True, True, False]
    assert await spend(world, 2, 3) == [False, True]
    assert world.db.read().one(COUNT) == (3, 3)


async def test_a_proof_is_refused_from_its_expiry_on(world: World) -> None:
    """The record of its first use may have been deleted while the request waited."""
    proofs = [proof(1, until=START - 1), proof(2, until=START), proof(3, until=START + 1)]
    assert await world.writer.submit(lambda tx: [store.proofs.spend(tx, one) for one in proofs]) == [False, False, True]


async def test_a_proof_used_in_one_process_is_refused_in_another_on_the_same_database(
    world: World, clock: Clock
) -> None:
    async with open_world(world.config, now=clock) as other:
        for number in range(6):
            here, there = (world, other) if number % 2 else (other, world)
            assert await spend(here, number) == [True]
            assert await spend(there, *range(number + 1)) == [False] * (number + 1)
        assert world.db.read().one(COUNT) == (6, 6)


async def test_an_idle_process_refuses_each_proof_that_another_process_has_used(world: World, clock: Clock) -> None:
    async with open_world(world.config, now=clock) as other:
        for number in (1, 2, 3):
            assert await spend(other, number) == [True]
            assert await spend(world, number) == [False]


async def test_a_proof_of_a_failed_batch_stays_spent_and_the_numbers_have_no_gap(world: World, clock: Clock) -> None:
    def fail(tx: Tx) -> None:
        assert store.proofs.spend(tx, proof(1))
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        await world.writer.submit(fail)
    async with open_world(world.config, now=clock) as other:
        assert await spend(other, 2) == [True]
    assert await spend(world, 1, 2, 3) == [False, False, True]
    assert world.db.read().one(COUNT) == (2, 2)


async def test_a_used_proof_is_deleted_from_memory_after_it_would_be_refused_as_expired(
    world: World, clock: Clock
) -> None:
    spent = await world.writer.submit(lambda tx: tx.get_singleton(Spent))
    assert await spend(world, 1) == [True]
    last = (START + SPAN) // SPAN * SPAN + SPAN
    for now, is_known in ((last - 1, True), (last, False)):
        clock.now = now
        await world.writer.submit(lambda tx: store.proofs.spend(tx, proof(tx.now, until=tx.now + 1)))
        assert (proof(1).digest in spent) is is_known


async def test_the_numbers_of_used_proofs_continue_after_pruning(world: World, clock: Clock) -> None:
    assert await spend(world, 1, 2) == [True, True]
    clock.advance(400)
    await flows.prune(world)
    assert world.db.read().one(COUNT) == (1, 2)
    async with open_world(world.config, now=clock) as other:
        later = [
            await one.writer.submit(lambda tx: store.proofs.spend(tx, proof(3, until=tx.now + 1)))
            for one in (other, world)
        ]
    assert later == [True, False]
    assert world.db.read().one(COUNT) == (2, 3)
