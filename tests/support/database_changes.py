"""Changes of the database behind the server's back."""

from __future__ import annotations

from typing import Any

from ostiaryd.ground.database import sql
from ostiaryd.ground.world import World
from ostiaryd.incidents.flows.state import StateCheck, check_state, state_check


async def complete_state_check(world: World) -> StateCheck:
    """Compare until a whole cycle has run since now."""
    check = world.get_singleton(state_check)
    since = check.cycles
    for _ in range(20):
        await check_state(world)
        if check.has_baseline and check.cycles > since + 1:
            return check
    raise AssertionError("the comparison does not come to an end")


def change_database(world: World, statement: str, **params: Any) -> None:
    """Change the database with another connection, as a person with a database client does."""
    connection = world.db.connect()
    connection.begin(write=True)
    assert connection.execute(sql(statement), params).rowcount
    connection.commit()
    connection.close()
