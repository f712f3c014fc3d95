"""Canary secrets, the last uses of secrets, and the secrets of an incident with their rotation."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import Any

import pytest
from hvac import exceptions
from msgspec.structs import replace
from starlette.types import ASGIApp

from harness.clock import Clock
from harness.patience import eventually
from ostiary.protocol.errors import Conflict
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.http.pages import Page
from ostiaryd.ground.world import World
from ostiaryd.incidents.flows import exposure, incidents
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import wire_rotations
from ostiaryd.secrets.flows import databases, operators, rotations
from ostiaryd.secrets.flows.synchronisation import parse_place, read_values
from ostiaryd.secrets.model.database import StaticRole
from ostiaryd.secrets.model.keyvalue import UseFilter
from ostiaryd.secrets.model.request import SECOND, NothingStored
from ostiaryd.secrets.model.rotation import RotationConfig
from ostiaryd.secrets.store import databases as database_store
from tests.secrets.vault_fixtures import VaultAgent, VaultStage, enter_agent, permit_all
from tests.support.webhook_receiver import receiving

DAY = 86_400 * SECOND


async def put(world: World, path: str) -> None:
    await act(world, "vault.write", lambda a: operators.put_secret(a, path, {"key": "value"}))


async def mark(world: World, path: str, *, is_canary: bool = True) -> None:
    await act(world, "vault.mark", lambda a: operators.mark_canary(a, path, is_canary=is_canary))


async def schedule(world: World, path: str, url: str = "https://shop.example") -> None:
    """Let a value rotate each hour, with a grace of ten minutes."""
    config = RotationConfig(member="key", url=url, period=3600, grace=600)
    await act(world, "rotation.put", lambda a: rotations.put_rotation(a, path, config))


def state(world: World, name: str) -> str:
    return registry.find_agent(world.db.read(), name).state.value


@pytest.mark.parametrize(
    ("mount", "path"),
    [("secret/data", "secret/agents/bot/root"), ("kv", "kv/agents/bot/root")],
)
async def test_an_agent_is_quarantined_at_once_after_it_reads_a_canary(
    world: World, bot: VaultAgent, mount: str, path: str
) -> None:
    await put(world, path)
    await mark(world, path)
    await mark(world, path, is_canary=False)
    url = f"{mount}/agents/bot/root"
    await mark(world, path)
    if mount == "secret/data":
        assert await bot.status("GET", "secret/metadata/agents/bot/root") == 200
        assert "canary" not in (await bot.ask("GET", "secret/metadata/agents/bot/root")).body.decode()
    assert state(world, "bot") == "active", "the names of secrets and their metadata are no values"
    answer = await bot.ask("GET", url)
    assert (answer.status, b"value" in answer.body) == (200, True), "a canary looks like every secret"
    assert state(world, "bot") == "quarantined"
    assert await bot.status("GET", url) == 403
    with pytest.raises(Conflict, match="cannot become a canary"):
        await mark(world, path)
    await act(world, "vault.read", lambda a: operators.get_secret(a, path))  # an administrator looks at the value


async def test_a_wrapped_read_of_a_canary_looks_like_any_other_read_and_quarantines_the_agent(
    world: World, bot: VaultAgent
) -> None:
    for name in ("db", "root"):
        await put(world, f"secret/agents/bot/{name}")
    await mark(world, "secret/agents/bot/root")
    headers = [("x-vault-wrap-ttl", "60")]
    answers = [await bot.ask("GET", f"secret/data/agents/bot/{name}", headers=headers) for name in ("db", "root")]
    assert [one.status for one in answers] == [200, 200]
    assert [one.json["wrap_info"]["ttl"] for one in answers] == [60, 60]
    assert state(world, "bot") == "quarantined"
    for one in answers:
        body = {"token": one.json["wrap_info"]["token"]}
        assert await bot.status("POST", "sys/wrapping/unwrap", body, token="") == 400, (
            "wrapped answers end with the agent"
        )


async def test_reads_of_canaries_by_the_server_itself_quarantine_no_agent(world: World, bot: VaultAgent) -> None:
    path = "secret/agents/bot/root"
    await put(world, path)
    await mark(world, path)

    def read(a: Act) -> dict[str, Any]:
        return read_values(a, parse_place("secret/agents/bot/"))

    assert await act(world, "backend.sync", read) == {"root": {"key": "value"}}
    await schedule(world, path)
    assert state(world, "bot") == "active"


async def test_a_secret_in_use_or_a_path_without_a_value_cannot_become_a_canary(world: World, bot: VaultAgent) -> None:
    await put(world, "secret/agents/bot/db")
    assert await bot.read("agents/bot/db") == {"key": "value"}
    with pytest.raises(Conflict, match="cannot become a canary"):
        await mark(world, "secret/agents/bot/db")
    await mark(world, "secret/agents/bot/db", is_canary=False)
    with pytest.raises(NothingStored):
        await mark(world, "secret/agents/bot/none")
    assert state(world, "bot") == "active"


def uses(world: World, **where: Any) -> list[tuple[str, bool]]:
    """The paths of secrets, and whether they were read."""
    page, found = Page(100, ""), UseFilter(mount="secret", **where)
    return [(one.path, one.read_at is not None) for one in operators.list_uses(world.db.read(), found, page)]


async def test_secrets_are_searched_by_their_last_use(
    world: World, app: ASGIApp, bot: VaultAgent, clock: Clock
) -> None:
    other = await (await enter_agent(world, app, "other")).login()
    for path in ("agents/bot/a", "agents/bot/b", "agents/other/c", "shared"):
        await put(world, f"secret/{path}")
    before = clock()
    await bot.read("agents/bot/a")
    await other.read("agents/other/c")
    ids = {name: registry.find_agent(world.db.read(), name).agent_id for name in ("bot", "other")}
    everything = [("agents/bot/a", True), ("agents/bot/b", False), ("agents/other/c", True), ("shared", False)]
    assert uses(world) == everything
    assert uses(world, folder="agents/bot/") == everything[:2]
    assert uses(world, is_unread=True) == [everything[1], everything[3]]
    assert uses(world, reader=ids["other"]) == [everything[2]]
    clock.advance(us=DAY)
    await put(world, "secret/shared")
    assert uses(world, rotated_before=before + 1) == everything[:3]
    [use] = operators.find_uses(world.db.read(), ["secret/agents/bot/a", "secret/agents/bot/none"])
    assert (use.reader, use.read_at, use.version) == (ids["bot"], before, 1)
    clock.advance(59)
    bot = await bot.login()
    await bot.read("agents/bot/a")
    [use] = operators.find_uses(world.db.read(), ["secret/agents/bot/a"])
    assert use.read_at == clock()


async def test_an_incident_lists_and_rotates_the_secrets_that_its_agent_read(
    world: World, bot: VaultAgent, clock: Clock
) -> None:
    await permit_all(world)
    for name in ("kept", "renewed", "unread"):
        await put(world, f"secret/agents/bot/{name}")
    role = StaticRole(database="shop", username="report", period=DAY, rotation=())

    def store_role(tx: Tx) -> None:
        database_store.put_static(tx, "report", role, due_at=tx.now + DAY)

    await world.writer.submit(store_role)
    await bot.read("agents/bot/kept")
    await bot.read("agents/bot/renewed")
    clock.advance(1)
    await put(world, "secret/agents/bot/renewed")
    agent = registry.find_agent(world.db.read(), "bot").agent_id

    def read(act: Any, path: str) -> None:
        act.entry.agent = agent
        registry.fill_entry(act, object=path)

    for path in ("backend/legacy/app", "database/static-creds/report"):
        await act(world, "vault.read", partial(read, path=path))
    incident = await act(world, "kill.agent", lambda a: incidents.isolate(a, "bot", says="a test", source="a test"))

    def exposed(reader: Reader) -> dict[str, tuple[bool, bool]]:
        found = exposure.find_exposed(reader, agent)
        return {one.path.rpartition("/")[2]: (one.is_renewed, one.can_rotate) for one in found}

    foreign = {"app": (False, False)}
    stored = {"kept": (False, False), "renewed": (True, False), "report": (False, True)}
    assert exposed(world.db.read()) == foreign | stored
    done = await act(world, "incident.rotate", lambda a: exposure.rotate_secrets(a, incident.incident_id))
    assert done.rotating == ["database/static-creds/report"]
    assert set(done.to_replace) == {"backend/legacy/app", "secret/agents/bot/kept"}
    assert databases.find_static(world.db.read(), "report").due_at <= world.now()
    clock.advance(1)
    await put(world, "secret/agents/bot/kept")
    again = await act(world, "incident.rotate", lambda a: exposure.rotate_secrets(a, incident.incident_id))
    assert again.to_replace == ["backend/legacy/app"], "a person has replaced the other one"


async def test_an_incident_rotates_an_exposed_value_and_ends_its_grace_period(
    world: World, bot: VaultAgent, clock: Clock
) -> None:
    world = dataclasses.replace(world, config=replace(world.config, private_hosts="127.0.0.1"))
    path, agent = "secret/agents/bot/db", registry.find_agent(world.db.read(), "bot").agent_id
    await put(world, path)
    await bot.read("agents/bot/db")
    incident = await act(world, "kill.agent", lambda a: incidents.isolate(a, "bot", says="a test", source="a test"))

    def exposed() -> tuple[bool, bool]:
        [one] = exposure.find_exposed(world.db.read(), agent)
        return one.is_renewed, one.can_rotate

    async def rotate() -> tuple[list[str], list[str]]:
        done = await act(world, "incident.rotate", lambda a: exposure.rotate_secrets(a, incident.incident_id))
        await wire_rotations.rotate_due(world)
        return done.rotating, done.to_replace

    with receiving() as service:
        await schedule(world, path, service.url)
        clock.advance(1)
        assert exposed() == (False, True)
        assert await rotate() == ([path], [])
        assert exposed() == (False, True), "the value that was read works in the grace"

        def read(a: Act) -> None:
            a.entry.agent = agent
            registry.fill_entry(a, object=path, version=2)

        assert await rotate() == ([path], [])
        assert [json.loads(body)["type"] for _, body in service.heard] == ["secret.rotate", "secret.retire"]
        assert exposed() == (True, True)
        assert await rotate() == ([], [])
        await act(world, "rotation.request", lambda a: rotations.request_rotation(a, path))
        await wire_rotations.rotate_due(world)
        clock.advance(1)
        await act(world, "vault.read", read)
        assert exposed() == (False, False), "the value in force was read, and the one before works still"
        assert await rotate() == ([], [path])
        assert len(service.heard) == 3


def test_the_reader_of_a_canary_has_an_incident_with_its_secrets(vault: VaultStage) -> None:
    server, ostiary = vault.live_server, vault.live_server.server.ostiary
    client = vault.login()
    for name in ("db", "root"):
        ostiary("secret", "put", f"secret/{vault.folder}/{name}", "key=value")
    ostiary("secret", "canary", f"secret/{vault.folder}/root")
    [row] = ostiary("secret", "list", f"secret/{vault.folder}", "--never-read", "--limit", "1")
    assert row["read_by"] is None
    for name in ("db", "root"):
        client.secrets.kv.v2.read_secret_version(f"{vault.folder}/{name}", raise_on_deleted_version=True)
    with pytest.raises(exceptions.Forbidden):
        client.secrets.kv.v2.read_secret_version(f"{vault.folder}/db", raise_on_deleted_version=True)
    rows = ostiary("secret", "list", f"secret/{vault.folder}", "--read-by", vault.name)
    assert [(one["read_by"], one["is_canary"]) for one in rows] == [(vault.name, False), (vault.name, True)]

    def find_incident() -> Any:
        return [one for one in server.api("GET", "/incidents", state="open")["incidents"] if one["agent"] == vault.name]

    [incident] = eventually(find_incident)
    assert (incident["agent_state"], "canary secret" in incident["says"]) == ("quarantined", True)
    shown = server.api("GET", f"/incidents/{incident['incident_id']}")
    read = {one["path"].rpartition("/")[2]: one["is_canary"] for one in shown["blast"]["secrets"]["read"]}
    assert read == {"db": False, "root": True}
    assert ("quarantine", "done") in [(one["response"], one["outcome"]) for one in shown["acts"]]
    done = server.api("POST", f"/incidents/{incident['incident_id']}/rotate-secrets")
    assert done == {"rotating": [], "revoked": 0, "to_replace": [f"secret/{vault.folder}/db"]}
    assert done == ostiary("incident", "rotate-secrets", incident["incident_id"])
    assert server.api("GET", "/audit", action="incident.rotate")["entries"] != []
    with pytest.raises(AssertionError, match="not_found"):
        server.api("POST", "/incidents/in_none/rotate-secrets")
