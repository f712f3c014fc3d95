"""Used proofs are deleted once they would be refused as expired, and not before."""

from __future__ import annotations

from harness.clock import START, Clock
from harness.registry_fixtures import newest_entry
from ostiary.protocol import dpop, jose
from ostiaryd.ground.database import sql
from ostiaryd.ground.process.clock import MARGIN
from ostiaryd.trust import flows
from tests.support.api_fixtures import SECOND, Client

COUNT = sql("select count(*), min(until), max(until) from spent")


def remembered(client: Client) -> tuple[int, int, int]:
    row = client.world.db.read().one(COUNT)
    assert row is not None
    return row[0], row[1], row[2]


async def test_the_assertion_and_the_proof_of_a_grant_are_stored_until_their_expiry(
    client: Client, clock: Clock
) -> None:
    await flows.prune(client.world)
    assert (await client.ask()).status == 200
    assert remembered(client) == (2, START + 60 * SECOND, START + dpop.WINDOW + 1)
    clock.now = START + 60 * SECOND + MARGIN - 1
    assert await flows.prune(client.world) == 0
    await client.ask()
    clock.advance(us=1)
    assert await flows.prune(client.world) == 1
    clock.advance(us=1)
    assert await flows.prune(client.world) == 1


async def test_expired_proofs_are_pruned_without_a_ledger_entry(client: Client, clock: Clock) -> None:
    before = newest_entry(client.world)
    for _ in range(7):
        await client.ask()
    assert remembered(client)[0] == 14
    last = newest_entry(client.world)
    clock.advance(400)
    assert await flows.prune(client.world) == 13
    assert remembered(client)[0] == 1
    assert newest_entry(client.world) == last != before


async def test_the_assertion_and_the_proof_of_a_refused_request_are_spent(client: Client) -> None:
    """Otherwise an observer of the refused request could use its assertion with another key."""
    proof, assertion = client.proof(), client.assertion()
    assert (await client.ask(scope="files:delete", proof=proof, client_assertion=assertion)).error == "invalid_scope"
    assert remembered(client)[0] == 2
    other = client.proof(key=jose.generate("ES256"))
    assert (await client.ask(proof=other, client_assertion=assertion)).error == "invalid_client"
    assert (await client.ask(proof=proof)).error == "invalid_dpop_proof"


async def test_a_nonce_challenge_does_not_spend_the_assertion(client: Client) -> None:
    assertion = client.assertion()
    challenged = await client.ask(proof=client.proof(nonce=None), client_assertion=assertion)
    assert (challenged.error, remembered(client)[0]) == ("use_dpop_nonce", 0)
    assert (await client.ask(client_assertion=assertion)).status == 200
