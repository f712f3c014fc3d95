"""A malicious guard, or one that is a copy of another: what it can do to the feed and to the ledger of others."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from harness.registry_fixtures import run_act
from ostiary.decision.feed import Message, parse_message
from ostiary.protocol.jose import JwkSet
from ostiaryd.feed.flows import Streams
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.model import decode_entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Resource, Verb
from tests.support.feed_reports import agent, call, report, resource, told

__all__ = ["agent", "resource"]
STREAM = "a-stream-of-this-test"


async def heard(world: World, lines: AsyncGenerator[bytes, None]) -> Message | None:
    """The next message; None where the stream is over."""
    line = await anext(lines, None)
    keys = JwkSet(tuple(world.keys.public("feed").values()))
    return None if line is None else parse_message(line, keys=keys)


async def test_a_second_stream_with_the_same_id_does_not_take_over_the_first(
    world: World, resource: Resource, agent: Agent
) -> None:
    """The first would hear nothing from then on."""
    streams = world.get_singleton(Streams)
    first, second = (streams.follow(resource, STREAM, None) for _ in range(2))
    assert (await heard(world, first)) is not None
    assert (await heard(world, second)) is None
    await run_act(world, lambda a: registry.set_agent_state(a, agent.agent_id, Verb.SUSPEND))
    message = await heard(world, first)
    assert message is not None
    assert [fact.agent for fact in message.facts] == [agent.agent_id]  # type: ignore[union-attr]
    await first.aclose()


async def test_a_guard_cannot_add_actors_to_the_entry_of_a_call(world: World, resource: Resource, agent: Agent) -> None:
    await report(world, resource, 1, call(agent, actors=["ag_innocent"]))
    [entry] = told(world)
    assert entry.actors == []


async def test_a_guard_cannot_report_calls_of_an_agent_that_never_had_a_token_for_it(
    world: World, resource: Resource, agent: Agent
) -> None:
    other = await run_act(world, lambda a: registry.create_resource(a, name="bank", uri="https://bank.example.org/mcp"))
    await report(world, other, 1, call(agent), spool="1" * 32)
    [entry] = told(world)
    assert (entry.action, entry.outcome, entry.agent) == ("report.refused", "refused", None)


async def test_extreme_values_in_a_report_do_not_fail_the_batch(world: World, resource: Resource, agent: Agent) -> None:
    arguments = {"n": 10**4000, "f": 1e308, "s": "\0", "d": {"d": [[[]]]}}
    await report(world, resource, 1, call(agent, arguments=arguments))
    assert told(world)[0].arguments is not None
    assert decode_entry(ledger.get_entry_body(world.db.read(), 0) or b"").at
