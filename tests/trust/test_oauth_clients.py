"""OAuth clients of registered agents: their redirect URIs, and finding them."""

from __future__ import annotations

from typing import Any

import pytest

from harness.registry_fixtures import call_admin_api, newest_entry
from ostiary.protocol.errors import NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ground.database.statement import Sql
from ostiaryd.ground.world import World
from ostiaryd.trust import flows
from ostiaryd.trust.model import InvalidClient
from ostiaryd.trust.model.clients import MAX_REDIRECT_URIS, ClientKind
from tests.support.api_fixtures import register

CALLBACK = "https://app.example/callback"


@pytest.fixture
async def agent(world: World) -> str:
    agent, _ = await register(world)
    return agent.agent_id


async def set_client(world: World, **body: Any) -> tuple[int, dict[str, Any]]:
    return await call_admin_api(world, "PUT", "/agents/reader/client", body)


async def test_an_agent_gets_redirect_uris_and_is_found_by_its_id(world: World, agent: str) -> None:
    assert flows.get_oauth_client(world.db.read(), agent) is None
    status, shown = await set_client(world, redirect_uris=[CALLBACK], post_logout_redirect_uris=["https://app.example"])
    assert (status, shown["client_id"], shown["kind"], shown["state"]) == (200, agent, "agent", "active")
    assert newest_entry(world).object == agent
    client = await flows.resolve_client(world, agent)
    assert (client.kind, client.name, client.is_public) == (ClientKind.AGENT, "reader", False)
    assert client.has_redirect_uri(CALLBACK)
    assert not client.has_redirect_uri(CALLBACK + "/")
    assert client.has_logout_uri("https://app.example")
    assert (await call_admin_api(world, "GET", f"/agents/{agent}/client"))[1] == shown


async def test_the_digest_of_a_client_changes_with_its_redirect_uris_alone(world: World, agent: str) -> None:
    first = (await set_client(world, redirect_uris=[CALLBACK, "https://app.example/b"]))[1]["digest"]
    again = (await set_client(world, redirect_uris=["https://app.example/b", CALLBACK]))[1]["digest"]
    logout = "https://app.example/bye"
    more = await set_client(
        world, redirect_uris=["https://app.example/b", CALLBACK], post_logout_redirect_uris=[logout]
    )
    assert first == again == more[1]["digest"]
    for others in ([CALLBACK], [CALLBACK, "https://app.example/c"]):
        assert (await set_client(world, redirect_uris=others))[1]["digest"] != first


async def test_a_removed_client_is_not_known(world: World, agent: str) -> None:
    await set_client(world, redirect_uris=[CALLBACK])
    assert await call_admin_api(world, "DELETE", "/agents/reader/client") == (200, {})
    assert flows.get_oauth_client(world.db.read(), agent) is None
    with pytest.raises(InvalidClient):
        await flows.resolve_client(world, agent)
    with pytest.raises(NotFound):
        flows.find_agent_client(world.db.read(), "reader")


@pytest.mark.parametrize(
    "body",
    [
        {"redirect_uris": ["http://app.example/callback"]},
        {"redirect_uris": [f"https://app.example/{i}" for i in range(MAX_REDIRECT_URIS + 1)]},
        {"redirect_uris": [CALLBACK], "post_logout_redirect_uris": ["javascript:alert(1)"]},
        {"redirect_uris": [CALLBACK], "backchannel_logout_uri": "https://127.0.0.1/logout"},
        {"redirect_uris": [CALLBACK], "backchannel_logout_uri": "http://app.example/logout"},
        {"redirect_uris": [CALLBACK], "backchannel_logout_uri": "https://169.254.169.254/latest"},
    ],
)
async def test_a_wrong_client_is_refused_and_nothing_changes(world: World, agent: str, body: dict[str, Any]) -> None:
    before = (await set_client(world, redirect_uris=[f"https://app.example/{i}" for i in range(MAX_REDIRECT_URIS)]))[1]
    assert (await set_client(world, **body))[0] == 422
    assert (await call_admin_api(world, "GET", "/agents/reader/client"))[1] == before
    assert newest_entry(world).outcome == "refused"


async def test_an_unknown_agent_gets_no_redirect_uri(world: World, agent: str) -> None:
    assert (await call_admin_api(world, "PUT", "/agents/nobody/client", {"redirect_uris": [CALLBACK]}))[0] == 404
    assert (await call_admin_api(world, "GET", "/agents/reader/client"))[0] == 404


class CountingReader(Reader):
    """A reader that counts its statements."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.statements: list[str] = []

    def _execute(self, statement: Sql, params: dict[str, Any]) -> Any:
        self.statements.append(statement.sqlite)
        return super()._execute(statement, params)


async def test_a_client_is_found_by_one_read_of_its_key(world: World, agent: str) -> None:
    await set_client(world, redirect_uris=[CALLBACK])
    connection = world.db.connect()
    try:
        reader = CountingReader(connection)
        for client_id in (agent, "https://app.example/client.json", "cl_0123456789abcdef0123456789abcdef"):
            flows.get_oauth_client(reader, client_id)
        assert len(reader.statements) == 3
        assert {text.rpartition(" where ")[2] for text in reader.statements} == {"client_id = ?1"}
    finally:
        connection.close()
