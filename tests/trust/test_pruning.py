"""What is remembered of proofs is forgotten when nobody would take them anyway, and not before."""

from __future__ import annotations

from ostiary.core import dpop
from ostiaryd.ground.database import sql
from ostiaryd.trust import flows
from tests.clock import START, Clock
from tests.registry.stage import newest
from tests.tokens.party import SECOND, Client

COUNT = sql("select count(*), min(until), max(until) from spent")


def remembered(client: Client) -> tuple[int, int, int]:
    row = client.world.db.read().one(COUNT)
    assert row is not None
    return row[0], row[1], row[2]


async def test_a_grant_is_remembered_as_two_until_neither_counts(client: Client, clock: Clock) -> None:
    await flows.prune(client.world)
    assert (await client.ask()).status == 200
    assert remembered(client) == (2, START + 60 * SECOND, START + dpop.WINDOW + 1)
    clock.now = START + 60 * SECOND - 1
    assert await flows.prune(client.world) == 0
    await client.ask()
    clock.advance(us=1)
    assert await flows.prune(client.world) == 1
    clock.advance(us=1)
    assert await flows.prune(client.world) == 1


async def test_all_is_forgotten_and_leaves_no_entry(client: Client, clock: Clock) -> None:
    before = newest(client.world)
    for _ in range(7):
        await client.ask()
    assert remembered(client)[0] == 14
    last = newest(client.world)
    clock.advance(400)
    assert await flows.prune(client.world) == 13
    assert remembered(client)[0] == 1
    assert newest(client.world) == last != before


async def test_a_refused_request_is_not_remembered_so_what_proved_the_client_may_be_shown_again(client: Client) -> None:
    proof, assertion = client.proof(), client.assertion()
    assert (await client.ask(scope="files:delete", proof=proof, client_assertion=assertion)).error == "invalid_scope"
    assert remembered(client)[0] == 0
    assert (await client.ask(proof=proof, client_assertion=assertion)).status == 200
