"""Text that a database cannot hold, from whoever may send some: it must not take the acts of others with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from tests.support.api_fixtures import Client, client
from tests.support.policy_fixtures import Ask, ask

__all__ = ["ask", "client"]
NUL = "\0"


def honest(act: Act) -> str:
    return "done"


@pytest.mark.parametrize("column", ["agent", "task", "person", "resource"])
async def test_an_entry_with_a_nul_does_not_fail_other_acts_of_its_batch(world: World, column: str) -> None:
    def poison(act: Act) -> None:
        setattr(act.entry, column, f"x{NUL}y")

    results = await asyncio.gather(
        act(world, "test.poison", poison), act(world, "test.honest", honest), return_exceptions=True
    )
    assert list(results) == [None, "done"]


async def test_an_evaluation_with_a_nul_does_not_fail_other_acts_of_its_batch(world: World, ask: Ask) -> None:
    question = {
        "subject": {"type": "user", "id": f"alice{NUL}"},
        "action": {"name": "read"},
        "resource": {"type": "record", "id": f"record{NUL}"},
    }
    asked, done = await asyncio.gather(
        ask("/access/v1/evaluation", question), act(world, "test.honest", honest), return_exceptions=True
    )
    assert done == "done"
    assert asked[0] == 200  # type: ignore[index]


@pytest.mark.parametrize(
    "said", [{"task": f"tk_{NUL}"}, {"resource": f"https://x.example/{NUL}"}, {"scope": f"files:{NUL}"}]
)
async def test_parameters_of_a_token_request_with_a_nul_are_refused(client: Client, said: dict[str, Any]) -> None:
    assert (await client.ask(**said)).error == "invalid_request"


async def test_a_client_id_with_a_nul_is_an_unknown_client(client: Client) -> None:
    answer = await client.ask(client_assertion=client.assertion(iss=f"ag_{NUL}", sub=f"ag_{NUL}"))
    assert answer.error == "invalid_client"
