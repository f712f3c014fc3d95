"""Guards that have reported lately, and are not connected."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial

from harness.clock import Clock
from harness.registry_fixtures import new_jwk, run_act
from ostiaryd.feed import store
from ostiaryd.feed.flows import Guards, Streams, find_missing_guards
from ostiaryd.feed.flows.missing import WITHIN, MissingGuard
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry


async def test_a_resource_that_reported_within_a_week_is_missing_until_a_guard_connects(
    world: World, clock: Clock
) -> None:
    streams, guards = world.get_singleton(Streams), world.get_singleton(Guards)
    files, mail, _ = [
        await run_act(
            world, partial(registry.create_resource, name=name, uri=f"https://{name}.example.org", jwk=new_jwk())
        )
        for name in ("files", "mail", "quiet")
    ]

    def missed() -> list[MissingGuard]:
        return find_missing_guards(world.db.read(), guards.all, now=world.now())

    assert missed() == [], "none has ever reported"
    for one, spool in ((files, "f1"), (files, "f2"), (mail, "m1")):
        await world.writer.submit(partial(store.save_spool, id=spool, resource_id=one.resource_id, next=2))
    assert [one.resource for one in missed()] == ["files", "mail"]
    async with aclosing(streams.follow(mail, "a-number-that-a-guard-threw", None)) as lines:
        await anext(lines)
        assert missed() == [("files", clock.now)]
    assert len(missed()) == 2
    clock.advance(us=WITHIN - 1)
    assert len(missed()) == 2
    clock.advance(us=1)
    assert missed() == []
