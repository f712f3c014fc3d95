"""Response wrapping: a wrapping token opens an answer once, and ends with all that its holder's token rests on."""

from __future__ import annotations

from typing import Any

import pytest
from hvac import Client, exceptions
from starlette.types import ASGIApp

from harness.clock import Clock
from harness.registry_fixtures import newest_entry
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from ostiaryd.secrets import flows
from ostiaryd.secrets.flows import wrapping
from tests.secrets.vault_fixtures import VaultAgent, VaultStage, enter_agent, permit_all, seal_all, unseal

PATH = "secret/data/agents/bot/db"
ELSEWHERE = "198.51.100.9"
CANARY = "wr4pp3d-c4n4ry"


async def wrap(bot: VaultAgent, ttl: str = "60s", path: str = PATH) -> Any:
    """The `wrap_info` of a read."""
    answer = await bot.ask("GET", path, headers=[("x-vault-wrap-ttl", ttl)])
    assert (answer.status, answer.json["data"], CANARY in answer.body.decode()) == (200, None, False), answer.body
    return answer.json["wrap_info"]


async def unwrap(bot: VaultAgent, token: str, verb: str = "unwrap", **more: Any) -> Any:
    return await bot.ask("PUT", f"sys/wrapping/{verb}", token=token, address=ELSEWHERE, **more)


async def test_a_wrapping_token_unwraps_its_response_once(world: World, bot: VaultAgent, clock: Clock) -> None:
    assert await bot.status("POST", PATH, {"data": {"password": CANARY}}) == 200
    info = await wrap(bot)
    assert (info["ttl"], info["creation_path"]) == (60, PATH)
    assert newest_entry(world).detail["wrapped"] == info["accessor"]  # type: ignore[index]
    shown = (await unwrap(bot, info["token"], "lookup")).json["data"]
    assert (shown["creation_path"], shown["creation_ttl"]) == (PATH, 60)
    opened = await unwrap(bot, info["token"])
    assert (opened.status, opened.json["data"]["data"]) == (200, {"password": CANARY})
    assert (newest_entry(world).action, newest_entry(world).agent) == ("vault.unwrap", bot.client.id)
    for verb in ("unwrap", "rewrap", "lookup"):
        again = await unwrap(bot, info["token"], verb)
        assert (again.status, again.json["errors"][0]) == (400, "wrapping token is not valid or does not exist")
        assert newest_entry(world).outcome == "refused"
    by_body = await bot.ask("POST", "sys/wrapping/unwrap", {"token": (await wrap(bot))["token"]})
    assert by_body.json["data"]["data"] == {"password": CANARY}
    kept = (await wrap(bot))["token"]
    wrong = await bot.ask("POST", "sys/wrapping/unwrap", {"token": kept}, token="hvs.wrong")
    assert wrong.status == 403
    for verb in ("unwrap", "rewrap"):
        twice = await bot.ask("POST", f"sys/wrapping/{verb}", {"token": kept}, token=kept)
        assert (twice.status, twice.json["errors"][0]) == (400, "the wrapping token was sent twice")
    assert (await bot.ask("POST", "sys/wrapping/lookup", {"token": kept}, token=kept)).status == 200
    renewed = (await unwrap(bot, kept, "rewrap")).json["wrap_info"]
    assert (await unwrap(bot, kept)).status == 400
    assert (await unwrap(bot, renewed["token"])).status == 200
    for token in ("hvs.", "hvs.x", bot.token, renewed["token"][:-1], "x", "hvs.\xe9"):
        assert (await unwrap(bot, token)).status == 400, token
    assert (await bot.ask("POST", "sys/wrapping/unwrap", {"token": [CANARY]})).status == 400
    late = (await wrap(bot, "10"))["token"]
    clock.advance(10)
    assert (await unwrap(bot, late)).status == 400
    entries = b"".join(body for _, body in ledger.search_entries(world.db.read(), {}, limit=500))
    for text in (CANARY, info["token"], renewed["token"], late):
        assert text.encode() not in entries


async def test_a_body_is_wrapped(bot: VaultAgent) -> None:
    answer = await bot.ask("POST", "sys/wrapping/wrap", {"a": {"b": CANARY}})
    assert answer.json["wrap_info"]["ttl"] == 300
    assert (await unwrap(bot, answer.json["wrap_info"]["token"])).json["data"] == {"a": {"b": CANARY}}
    answer = await bot.ask("POST", "sys/wrapping/wrap", {"a": 1}, headers=[("x-vault-wrap-ttl", "1m")])
    assert answer.json["wrap_info"]["ttl"] == 60
    assert await bot.status("POST", "sys/wrapping/wrap", {"a": 1}, token="") == 403


async def test_a_login_seal_or_unwrap_response_cannot_be_wrapped(bot: VaultAgent) -> None:
    header = [("x-vault-wrap-ttl", "60")]
    assert await bot.status("GET", PATH, headers=header) == 404
    assert await bot.status("POST", "kv/agents/bot/db", {"a": "b"}, headers=header) == 204
    assert await bot.status("GET", "secret/data/agents/other/db", headers=header) == 403
    for path, body in (
        ("auth/jwt/login", {"jwt": "x"}),
        ("auth/approle/login", {"role_id": "x", "secret_id": "y"}),
        ("sys/wrapping/unwrap", {"token": "x"}),
        ("sys/unseal", {"key": "x"}),
        ("sys/seal", {}),
    ):
        answer = await bot.ask("POST", path, body, headers=header)
        said = answer.json["errors"][0]
        assert (answer.status, said) == (400, "the response to this request cannot be wrapped"), path


async def test_a_wrapped_response_ends_with_its_token_and_its_agent(
    world: World, app: ASGIApp, bot: VaultAgent
) -> None:
    assert await bot.status("POST", PATH, {"data": {"a": "b"}}) == 200
    first = (await wrap(bot))["token"]
    assert await bot.status("POST", "auth/token/revoke-self") == 204
    assert (await unwrap(bot, first)).status == 400
    await bot.login()
    second = (await wrap(bot))["token"]
    await act(world, "agent.suspend", lambda a: registry.set_agent_state(a, "bot", Verb.SUSPEND))
    refused = await unwrap(bot, second)
    assert refused.status == 400
    assert b'"a"' not in refused.body
    del app


async def test_an_agent_has_at_most_the_maximum_number_of_wrapped_responses(
    world: World, app: ASGIApp, bot: VaultAgent, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrapping, "MAX_WRAPPED", 2)
    other = await (await enter_agent(world, app, "other")).login()
    assert await bot.status("POST", PATH, {"data": {"a": "b"}}) == 200
    [first, _] = [await wrap(bot, "30") for _ in range(2)]
    header = [("x-vault-wrap-ttl", "30")]
    assert await bot.status("GET", PATH, headers=header) == 400
    assert await other.status("POST", "sys/wrapping/wrap", {"a": 1}) == 200
    assert (await unwrap(bot, first["token"])).status == 200
    await wrap(bot, "30")
    assert await bot.status("GET", PATH, headers=header) == 400
    clock.advance(31)
    await flows.forget_wrapped(world)
    await wrap(bot, "30")


async def test_a_response_larger_than_the_maximum_is_not_wrapped(
    bot: VaultAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await bot.status("POST", PATH, {"data": {"a": "b"}}) == 200
    answer = await unwrap(bot, (await wrap(bot))["token"])
    for most, status in ((len(answer.body), 200), (len(answer.body) - 1, 400)):
        monkeypatch.setattr(wrapping, "MAX_CONTENT", most)
        assert await bot.status("GET", PATH, headers=[("x-vault-wrap-ttl", "60")]) == status


async def test_a_wrapped_response_is_sealed_and_re_encrypted_with_the_secrets(world: World, bot: VaultAgent) -> None:
    assert await bot.status("POST", PATH, {"data": {"a": "b"}}) == 200
    token = (await wrap(bot))["token"]
    await seal_all(world)
    assert (await unwrap(bot, token)).status == 503
    await unseal(world)
    await act(world, "vault.rotate", flows.rotate_keys)
    assert await flows.renew_envelopes(world) == 2
    assert (await unwrap(bot, token)).json["data"]["data"] == {"a": "b"}


def test_hvac_wraps_and_unwraps(vault: VaultStage) -> None:
    client = vault.login()
    wrapped = client.sys.wrap({"foo": CANARY}, ttl=60)
    token = wrapped["wrap_info"]["token"]
    assert Client(url=vault.url, token=token).sys.unwrap()["data"] == {"foo": CANARY}
    with pytest.raises(exceptions.InvalidRequest):
        client.sys.unwrap(token)


async def test_wrap_info_names_the_accessor_of_a_wrapped_token(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    header = [("x-vault-wrap-ttl", "60s")]
    info = (await bot.ask("POST", "auth/token/create", {"ttl": "5m"}, headers=header)).json["wrap_info"]
    made = (await unwrap(bot, info["token"])).json["auth"]
    assert (info["wrapped_accessor"], info["accessor"] == made["accessor"]) == (made["accessor"], False)
    assert await bot.status("POST", PATH, {"data": {"a": "b"}}) == 200
    assert (await wrap(bot))["wrapped_accessor"] == ""
