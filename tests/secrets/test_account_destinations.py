"""Secrets that egress proxies use: access tokens of connected accounts, and secrets of back ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from harness.clock import Clock
from harness.registry_fixtures import newest_entry
from ostiary.authorization.bounds import parse_details
from ostiary.protocol.destination import Destination, Place
from ostiary.protocol.errors import Invalid, Malformed, Refused
from ostiary.protocol.secret_forms import SecretSent
from ostiaryd.app import build_app
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import act
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller
from ostiaryd.secrets import wire_egress
from ostiaryd.secrets.flows import backends, destinations
from ostiaryd.secrets.model.backend import BackendConfig, BackendKind
from ostiaryd.secrets.model.connected_account import REUSE_S
from ostiaryd.tasks import flows as tasks
from tests.secrets.account_fixtures import NAME, SCOPES, AccountAgent, AccountStage, stage_of, token_of
from tests.secrets.vault_fixtures import POLICIES, seal_all, unseal
from tests.support.api_fixtures import claims_of, reconfigured
from tests.support.certificate_fixtures import put_policies
from tests.support.token_provider import TokenProvider, token_provider
from tests.support.trust_fixtures import API

HOST = "notes.example"
USING = """
@id("use") permit (principal is Agent, action == Action::"use_secret", resource is Secret)
when { context.request_host == "notes.example" && !context.token_scopes.contains("notes:delete") };
"""


@pytest.fixture
def upstream() -> Iterator[TokenProvider]:
    with token_provider() as made:
        yield made


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def here(world: World, folder: Path) -> World:
    return reconfigured(world, private_hosts="127.0.0.1", secret_backends=str(folder))


@pytest.fixture
async def app(here: World) -> ASGIApp:
    await put_policies(here, POLICIES + USING)
    return build_app(here)


@pytest.fixture
async def stage(here: World, app: ASGIApp, upstream: TokenProvider, clock: Clock) -> AccountStage:
    stage = await stage_of(here, app, upstream, clock)
    await stage.add()
    await stage.connect()
    return stage


async def add(world: World, secret: str, name: str = "notes", member: str = "", scopes: tuple[str, ...] = ()) -> None:
    destination = Destination(name=name, origin=f"https://{HOST}", place=Place.PLACEHOLDER)

    def create(a: Any) -> Any:
        return destinations.create_destination(a, destination, secret=secret, member=member, scopes=scopes)

    await act(world, "secret.create_destination", create)


class ProxyOf:
    """The egress proxy of an agent, with the token that the agent got for it."""

    def __init__(self, world: World, resource: str, token: str) -> None:
        self._world, self._resource, self._token = world, resource, token

    async def use(self, destination: str = "notes", path: str = "/notes") -> dict[str, Any]:
        by = Caller(kind="guard", id=self._resource, name="proxy", owner=None, scopes=frozenset({"ostiary:feed"}))
        body = {"token": self._token, "destination": destination, "method": "GET", "host": HOST, "path": path}
        headers = [(b"content-type", b"application/json")]
        sent = Call(self._world, "POST", "/feed/v1/use-secret", {}, "", headers, json.dumps(body).encode(), "rq_1", by)
        reply = await wire_egress.use_secret(sent)
        assert isinstance(reply.body, bytes)
        answer: dict[str, Any] = json.loads(reply.body)
        return answer


async def add_proxy(world: World, name: str) -> str:
    uri = f"http://localhost/egress/{name}"
    made = await act(world, "test.proxy", lambda a: registry.create_resource(a, name=f"{name}.egress", uri=uri))
    return str(made.resource_id)


async def proxy_of(world: World, bot: AccountAgent, *, resource: str = "") -> ProxyOf:
    resource = resource or await add_proxy(world, bot.name)
    token = await bot.client.token(resource=f"http://localhost/egress/{bot.name}", task=bot.task)
    return ProxyOf(world, resource, claims_of(token["access_token"])["jti"])


async def refusal(proxy: ProxyOf, destination: str = "notes") -> str:
    with pytest.raises(Refused) as refused:
        await proxy.use(destination)
    return refused.value.code


def uses(world: World) -> list[Entry]:
    return [
        decode_entry(body) for _, body in ledger.search_entries(world.db.read(), {"action": "vault.inject"}, limit=50)
    ]


async def test_a_proxy_uses_a_token_of_the_account_that_the_agent_cannot_read(
    stage: AccountStage, here: World, clock: Clock
) -> None:
    upstream = stage.upstream
    await add(here, f"oauth/creds/{NAME}", scopes=(SCOPES[0],))
    upstream.refreshed = {"expires_in": 300}
    bot = await stage.agent()
    proxy = await proxy_of(here, bot)
    assert (await token_of(bot)).status == 403, "the policies permit the use alone"
    first = await proxy.use()
    end = here.now() // 1_000_000 + 300
    assert (first["secret"].startswith("access-"), first["expires_at"]) == (True, end)
    assert upstream.asked[-1][1]["scope"] == SCOPES[0]
    assert await proxy.use(path="/others") == first, "a live token is used again"
    clock.advance(300 - REUSE_S - 1)
    assert await proxy.use() == first
    clock.advance(1)
    second = await proxy.use()
    assert (second["secret"] != first["secret"], upstream.reused) == (True, False)
    other = await stage.agent("other")
    assert (await (await proxy_of(here, other)).use())["secret"] not in (first["secret"], second["secret"])
    entry = next(one for one in uses(here) if one.agent == bot.client.id)
    detail = entry.detail or {}
    assert (entry.object, entry.person, detail["scopes"]) == (
        f"oauth/creds/{NAME}",
        stage.accounts()[0].person,
        [SCOPES[0]],
    )
    assert detail["lease"].startswith(f"oauth/creds/{NAME}/")
    await act(here, "test.end", lambda a: tasks.end(a, bot.task))
    assert await refusal(proxy) == "foreign_token"
    await stage.settle()
    assert second["secret"] in upstream.revoked


async def test_a_proxy_uses_an_account_only_for_a_task_on_behalf_of_its_person(
    stage: AccountStage, here: World
) -> None:
    await add(here, f"oauth/creds/{NAME}")
    await add(here, "oauth/creds/none", "none")
    alone = await proxy_of(here, await stage.agent("alone", behalf=None))
    assert await refusal(alone) == "no_person"
    await act(here, "test.person", lambda a: registry.create_person(a, name="eve"))
    foreign = await proxy_of(here, await stage.agent("foreign", owner="eve"))
    assert await refusal(foreign) == "no_consent"
    bot = await proxy_of(here, await stage.agent())
    assert await refusal(bot, "none") == "not_found"
    await seal_all(here)
    assert await refusal(bot) == "sealed"
    await unseal(here)
    assert (await bot.use())["secret"].startswith("access-")
    stage.upstream.failing = 500
    other = await proxy_of(here, await stage.agent("other"))
    assert await refusal(other) == "provider_down"


async def test_bounds_and_policies_see_the_path_and_the_scopes_of_the_token(stage: AccountStage, here: World) -> None:
    await add(here, f"oauth/creds/{NAME}", scopes=(SCOPES[0],))
    await add(here, f"oauth/creds/{NAME}", "all")
    bound = {
        "type": "tool",
        "locations": [API],
        "actions": ["use_secret"],
        "arguments": {"path": {"one_of": [f"oauth/creds/{NAME}"]}, "request_destination": {"one_of": ["notes"]}},
    }
    reach = {"type": "tool", "locations": ["http://localhost/egress/bot"], "actions": ["get"]}
    resource = await add_proxy(here, "bot")
    proxy = await proxy_of(
        here, await stage.agent(bounds=parse_details([bound, reach]), scopes=("bot.egress:read",)), resource=resource
    )
    assert (await proxy.use())["secret"].startswith("access-")
    assert await refusal(proxy, "all") == "outside_task"
    await put_policies(here, POLICIES + USING.replace("notes:delete", "notes:write"))
    proxy = await proxy_of(here, await stage.agent("second"))
    assert (await proxy.use())["secret"].startswith("access-")
    assert await refusal(proxy, "all") == "access_denied"


async def test_a_proxy_uses_a_secret_of_a_back_end(stage: AccountStage, here: World, folder: Path) -> None:
    (folder / "shop.json").write_text(json.dumps({"key": "sk-4711-4711", "user": "bot"}))
    config = BackendConfig(kind=BackendKind.FILES, address=str(folder))
    await act(here, "test.backend", lambda a: backends.put_backend(a, "old", config, {}))
    await add(here, "backend/old/shop.json", member="key")
    await add(here, "backend/old/shop.json", "several")
    await add(here, "backend/gone/shop.json", "gone", member="key")
    proxy = await proxy_of(here, await stage.agent())
    assert await proxy.use() == {"secret": "sk-4711-4711", "expires_at": 0}
    assert await refusal(proxy, "several") == "unusable_secret"
    assert await refusal(proxy, "gone") == "no_route"
    await act(here, "test.backend", lambda a: backends.delete_backend(a, "old"))
    assert await refusal(proxy) == "no_route"
    assert b"sk-4711" not in b"".join(body for _, body in ledger.search_entries(here.db.read(), {}, limit=500))


async def test_a_destination_with_a_malformed_source_is_refused(world: World) -> None:
    cases: list[tuple[str, str, tuple[str, ...]]] = [
        ("oauth/creds", "", ()),
        ("oauth/creds/", "", ()),
        ("oauth/creds/a/b", "", ()),
        ("oauth/config/a", "", ()),
        ("oauth/creds/a", "access_token", ()),
        ("oauth/creds/a", "", ("a b",)),
        ("secret/a", "", ("notes:read",)),
        ("backend/a", "", ()),
        ("backend/a/", "", ()),
        ("backend/a/b/", "", ()),
        ("transit/keys/a", "", ()),
        ("database/creds/a", "", ()),
        ("secret", "", ()),
        ("secret/a/", "", ()),
        ("oauth/creds/a%2f", "", ()),
    ]
    for secret, member, scopes in cases:
        with pytest.raises((Invalid, Malformed)):
            await add(world, secret, member=member, scopes=scopes)
    await add(world, "oauth/creds/a", scopes=("notes:read",))


async def test_an_origin_with_a_password_is_refused_and_its_password_is_not_recorded(world: World) -> None:
    wrong = Destination(name="notes", origin=f"https://me:c4n4ry@{HOST}", place=Place.PLACEHOLDER)
    with pytest.raises(Invalid, match="a user"):
        await act(
            world,
            "secret.create_destination",
            lambda a: destinations.create_destination(a, wrong, secret="secret/shared/a", member=""),
        )
    assert newest_entry(world).outcome == "refused"
    assert "c4n4ry" not in repr(newest_entry(world))
    await add(world, "secret/shared/a")
    assert newest_entry(world).detail == {"origin": f"https://{HOST}", "secret": "secret/shared/a"}


async def test_a_secret_is_registered_for_the_secret_search_when_a_proxy_gets_the_secret(
    stage: AccountStage, here: World, clock: Clock
) -> None:
    await add(here, f"oauth/creds/{NAME}", scopes=(SCOPES[0],))
    bot = await stage.agent()
    proxy = await proxy_of(here, bot)
    assert registry.list_secret_users(here.db.read(), now=here.now()) == []
    secret = (await proxy.use())["secret"]
    [(agent, until)] = registry.list_secret_users(here.db.read(), now=here.now())
    with pytest.raises(SecretSent):
        registry.check_no_secret(here.db.read(), [agent], f"x{secret}", keys=here.keys, now=here.now())
    [(_, body)] = ledger.search_entries(here.db.read(), {"action": "secret.note_use"}, limit=50)
    entry = decode_entry(body)
    assert (entry.agent, entry.object, entry.outcome) == (agent, "notes", "ok")
    await proxy.use(path="/others")
    assert len(ledger.search_entries(here.db.read(), {"action": "secret.note_use"}, limit=50)) == 1, (
        "it is known already"
    )
    assert [until for _, until in registry.list_secret_users(here.db.read(), now=here.now())] == [until]
