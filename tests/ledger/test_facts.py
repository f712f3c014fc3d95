"""Facts of decisions: stored in a table beside the entries, and deleted later without a change of the entries."""

from __future__ import annotations

import msgspec
import pytest

from harness.clock import Clock
from ostiaryd.ground.world import World
from ostiaryd.ledger import store
from ostiaryd.ledger.flows import DAY, Act, act, forget_facts


async def decide(world: World, facts: bytes) -> None:
    def flow(act: Act) -> None:
        act.entry.attach_facts(facts)

    await act(world, "test", flow)


def kept(world: World) -> list[bytes]:
    return [
        bytes(facts) for _, _, facts in store.list_entries_with_facts(world.db.read(), 0, 1 << 40) if facts is not None
    ]


async def test_an_entry_has_the_digest_of_its_facts_and_a_table_stores_the_facts(world: World) -> None:
    await decide(world, b"what was asked")
    [(index, body, facts)] = store.list_entries_with_facts(world.db.read(), 0, 1 << 40)
    assert facts is not None
    assert bytes(facts) == b"what was asked"
    assert msgspec.json.decode(body)["facts"] == "m0oRhYHz_7KnjtQ-ca5-gPN7JsW3sNjAfWL4-MYtu0Q"
    assert "beside" not in msgspec.json.decode(body)
    assert store.get_entry_body(world.db.read(), index) == bytes(body)


@pytest.mark.parametrize(("more", "left"), [(-1, [b"old", b"new"]), (0, [b"old", b"new"]), (1, [b"new"])])
async def test_facts_are_deleted_after_the_configured_number_of_days(
    world: World, clock: Clock, more: int, left: list[bytes]
) -> None:
    await decide(world, b"old")
    clock.advance(us=world.config.replay_days * DAY + more)
    await decide(world, b"new")
    size = store.get_head(world.db.read())[0].size
    await forget_facts(world)
    assert kept(world) == left
    assert store.get_head(world.db.read())[0].size == size
    assert len(store.list_entry_bodies(world.db.read(), 0, size)) == size


async def test_a_server_with_a_retention_of_zero_days_stores_no_facts(world: World) -> None:
    none = msgspec.structs.replace(world.config, replay_days=0)
    object.__setattr__(world, "config", none)
    await decide(world, b"what was asked")
    assert kept(world) == []
    newest = store.search_entries(world.db.read(), {}, limit=1)[0][1]
    assert "facts" not in msgspec.json.decode(newest)
