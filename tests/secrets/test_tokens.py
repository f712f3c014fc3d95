"""Vault tokens: their life, what ends them at once, their address, and the bounds and restrictions of their agent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from starlette.types import ASGIApp

from harness.clock import Clock
from harness.registry_fixtures import SECOND, newest_entry
from ostiary.authorization.assurance import BEARER
from ostiary.authorization.bounds import parse_details
from ostiary.decision.access.restrictions import RestrictionKind
from ostiary.protocol import dpop
from ostiaryd.ground.database import sql
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from ostiaryd.secrets.flows import forget_tokens
from ostiaryd.secrets.model.token import LONGEST_S
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from ostiaryd.trust import flows as trust
from tests.secrets.vault_fixtures import HOME, VaultAgent, enter_agent, permit_all
from tests.support.api_fixtures import ISSUER, Answer, Client, guard
from tests.support.trust_fixtures import API

PATH = "secret/data/agents/bot/db"
COUNT = sql("select count(*) from vault_token")
ACRS = sql("select acr from vault_token")
VALUE = {"data": {"password": "s"}}


async def run(world: World, flow: Callable[[Act], Any]) -> Any:
    return await act(world, "test", flow)


async def start_task(world: World, agent: str = "bot", **said: Any) -> str:
    task = await run(world, lambda a: tasks.start(a, TaskSpec(agent=agent, purpose="to read", **said)))
    return str(task.task_id)


async def log_in_by_secret(world: World, bot: VaultAgent) -> str:
    """Log in by a client secret; return the id of the secret."""
    made = await run(world, lambda a: trust.create_secret(a, bot.name))
    answer = await bot.ask("POST", "auth/approle/login", {"role_id": made.holder, "secret_id": made.secret}, token="")
    assert answer.status == 200, answer.body
    bot.token = answer.json["auth"]["client_token"]
    return str(made.id)


async def test_a_token_is_looked_up_renewed_and_revoked_by_its_holder(
    world: World, bot: VaultAgent, clock: Clock
) -> None:
    shown = (await bot.ask("GET", "auth/token/lookup-self")).json["data"]
    assert (shown["id"], shown["bound_cidrs"], shown["meta"]["role"]) == (bot.token, [f"{HOME}/32"], "bot")
    by_bearer = [("authorization", f"Bearer {bot.token}")]
    assert (await bot.ask("GET", "auth/token/lookup-self", token="", headers=by_bearer)).json["data"] == shown
    renewed = await bot.ask("POST", "auth/token/renew-self", {"increment": "2s"})
    assert renewed.json["auth"]["lease_duration"] == 2
    for default in (0, "0", "0s", "", None):
        assert (await bot.ask("POST", "auth/token/renew-self", {"increment": default})).json["auth"][
            "lease_duration"
        ] > 2
    await bot.ask("POST", "auth/token/renew-self", {"increment": "2s"})
    clock.advance(1.999999)
    assert await bot.status("GET", "auth/token/lookup-self") == 200
    clock.advance(0.000001)
    assert await bot.status("GET", "auth/token/lookup-self") == 403
    assert newest_entry(world).reasons[0].code == "token_refused"
    assert await bot.status("POST", "auth/token/renew-self", {}) == 403
    await bot.login()
    for wrong in (-1, "x", True, [1]):
        assert await bot.status("POST", "auth/token/renew-self", {"increment": wrong}) == 400
    assert await bot.status("POST", "auth/token/revoke-self") == 204
    assert await bot.status("GET", "auth/token/lookup-self") == 403
    clock.advance(7200)
    await forget_tokens(world)
    assert world.db.read().one(COUNT) == (0,)


async def test_a_renewed_token_does_not_outlive_its_login(world: World, bot: VaultAgent, clock: Clock) -> None:
    shown = (await bot.ask("GET", "auth/token/lookup-self")).json["data"]
    assert "last_renewal_time" not in shown
    clock.advance(1)
    by_token = await bot.ask("POST", "auth/token/renew-self", {"increment": "24h"})
    shown = (await bot.ask("GET", "auth/token/lookup-self")).json["data"]
    assert shown["last_renewal_time"] == clock() // 1_000_000 == shown["creation_time"] + 1
    assert await bot.status("POST", "auth/token/tidy") == 403
    await permit_all(world)
    assert (await bot.ask("POST", "auth/token/tidy")).status == 202
    assert by_token.json["auth"]["lease_duration"] <= 3600, "a token ends with the access token of its login"
    await log_in_by_secret(world, bot)
    clock.advance(1800)
    answer = await bot.ask("POST", "auth/token/renew-self", {"increment": LONGEST_S})
    assert answer.json["auth"]["lease_duration"] == LONGEST_S - 1800
    clock.advance(LONGEST_S - 1801)
    assert await bot.status("POST", "auth/token/renew-self", {}) == 200
    clock.advance(1)
    assert await bot.status("GET", "auth/token/lookup-self") == 403


async def test_a_token_ends_with_its_agent_task_key_and_every_other_basis(
    world: World, app: ASGIApp, clock: Clock
) -> None:
    """Each end is in force at the next request, and concerns no other agent."""
    other = await enter_agent(world, app, "other", segment="outer")
    boss = await enter_agent(world, app, "boss", model="m-9")
    await permit_all(world)  # also for the agents above a task
    count = 0

    async def check(end: Callable[[Act, VaultAgent, str], Any], *, login: str = "task", **task: Any) -> None:
        nonlocal count
        count += 1
        clock.advance(60)  # each refusal of a minute is an entry of its own up to a limit
        await other.login()
        segment = "default" if "parent" in task else f"inner-{count}"
        bot = await enter_agent(world, app, f"bot-{count}", segment=segment, model=f"m-{count}")
        task_id = await start_task(world, bot.name, **task)
        secret = await log_in_by_secret(world, bot) if login == "secret" else ""
        if login == "task":
            await bot.login(task=task_id)
        path = f"secret/data/{bot.folder}/db"
        written = await bot.ask("POST", path, VALUE)
        assert written.status == 200, written.body
        await run(world, lambda a: end(a, bot, secret or task_id))
        refused = await bot.ask("GET", path)
        assert (refused.status, "password" in repr(refused.body)) == (403, False), count
        entry = newest_entry(world)
        assert (entry.outcome, entry.action) == ("refused", "vault.read")
        assert await bot.status("GET", "auth/token/lookup-self") == 403
        assert await other.status("GET", "auth/token/lookup-self") == 200

    def stop(target: Any, value: Callable[[VaultAgent, str], str]) -> Any:
        return lambda a, bot, task: registry.stop(a, target, value(bot, task), why="a test", by=None)

    def move(verb: Verb) -> Any:
        return lambda a, bot, task: registry.set_agent_state(a, bot.name, verb)

    top = await start_task(world, "boss")
    ann = registry.find_person(world.db.read(), "ann").person_id
    await run(world, lambda a: registry.create_person(a, name="eve"))
    eve = registry.find_person(world.db.read(), "eve").person_id
    await check(lambda a, bot, task: tasks.end(a, task))
    await check(lambda a, bot, task: registry.revoke_key(a, bot.client.key.public.thumbprint))
    await check(lambda a, bot, task: trust.forbid_bearer(a, bot.name, "ostiary"))
    await check(lambda a, bot, secret: trust.revoke_secret(a, bot.name, secret), login="secret")
    await check(lambda a, bot, task: trust.forbid_bearer(a, bot.name, "ostiary"), login="secret")
    for verb in (Verb.SUSPEND, Verb.QUARANTINE, Verb.REVOKE):
        await check(move(verb))
    await check(stop("task", lambda bot, task: task))
    await check(stop("segment", lambda bot, task: bot.name.replace("bot", "inner")))
    await check(stop("model", lambda bot, task: bot.name.replace("bot", "m")))
    await check(stop("owner", lambda bot, task: eve), on_behalf_of="eve")
    await check(stop("task", lambda bot, task: top), parent=top)
    await run(world, lambda a: registry.lift_stop(a, "task", top))
    await check(stop("model", lambda bot, task: "m-9"), parent=top)
    assert boss.token == ""
    await run(world, lambda a: registry.stop(a, "owner", ann, why="a test", by=None))
    assert await other.status("GET", "auth/token/lookup-self") == 403


async def test_a_token_is_accepted_only_from_the_address_of_its_login(world: World, bot: VaultAgent) -> None:
    assert await bot.status("POST", PATH, VALUE) == 200
    assert await bot.status("GET", PATH, address=f"::ffff:{HOME}") == 200
    for address in ("192.0.2.8", "::1", "", "bot"):
        assert await bot.status("GET", PATH, address=address) == 403
        entry = newest_entry(world)
        assert (entry.outcome, entry.agent) == ("refused", bot.client.id)
    bearer = await bot.bearer()
    unknown = await bot.ask("POST", "auth/jwt/login", {"jwt": bearer}, token="", address="")
    assert (unknown.status, newest_entry(world).outcome) == (403, "refused")
    await bot.login(address="2001:db8::1")
    statuses = [await bot.status("GET", PATH, address=one) for one in ("2001:db8::1", "2001:db8::2", HOME)]
    assert statuses == [200, 403, 403]


async def test_a_task_with_bounds_permits_only_the_named_actions_and_paths(world: World, bot: VaultAgent) -> None:
    assert await bot.status("POST", PATH, VALUE) == 200
    assert await bot.status("POST", f"{PATH}-2", VALUE) == 200
    bound = {
        "type": "tool",
        "locations": [API],
        "actions": ["read_secret"],
        "arguments": {"path": {"eq": "secret/agents/bot/db"}},
    }
    await bot.login(task=await start_task(world, bounds=parse_details([bound])))
    assert await bot.status("GET", PATH) == 200
    for method, path, body in (
        ("GET", f"{PATH}-2", None),
        ("POST", PATH, VALUE),
        ("LIST", "secret/metadata/agents/bot", None),
        ("GET", "kv/agents/bot/db", None),
    ):
        assert await bot.status(method, path, body) == 403
        assert newest_entry(world).reasons[0].code == "outside_task"
    paths = {"paths": [PATH, f"{PATH}-2", "sys/x", "secret/data/agents/bot/..", ""]}
    shown = (await bot.ask("POST", "sys/capabilities-self", paths)).json["data"]
    assert [shown[path] for path in paths["paths"]] == [["read"], ["deny"], ["deny"], ["deny"], ["deny"]]
    assert await bot.status("POST", "sys/capabilities-self", {"paths": ["a"] * 20}) == 200
    assert await bot.status("POST", "sys/capabilities-self", {"paths": ["a"] * 21}) == 400


async def test_a_restricted_agent_can_at_most_read_secrets(world: World, bot: VaultAgent, clock: Clock) -> None:
    assert await bot.status("POST", PATH, VALUE) == 200
    cases: tuple[tuple[RestrictionKind, int, list[int]], ...] = (
        ("narrow", 0, [200, 403]),
        ("throttle", 10_000, [403, 403]),
        ("step_up", 2, [403, 403]),
    )
    for kind, limit, statuses in cases:
        until = clock() + SECOND
        await run(world, partial(registry.put_restriction, id_or_name="bot", kind=kind, until=until, limit=limit))
        assert [await bot.status("GET", PATH), await bot.status("POST", PATH, VALUE)] == statuses
        assert newest_entry(world).reasons[0].code == "restricted"
        clock.advance(1)
        assert [await bot.status("GET", PATH), await bot.status("POST", PATH, VALUE)] == [200, 200]


async def test_a_bound_token_needs_a_proof_and_gets_a_vault_token_only_with_an_exemption(
    world: World, app: ASGIApp
) -> None:
    bot = await enter_agent(world, app, "bot", is_exempt=False)
    token = (await bot.client.token(resource=API))["access_token"]
    nonce: str | None = None

    def proof(path: str, method: str) -> str:
        return bot.client.proof(method=method, uri=f"{ISSUER}/v1/{path}", access_token=token, nonce=nonce)

    async def ask(method: str, path: str, body: Any = None, *, shown: str = "") -> Answer:
        headers = [("authorization", f"DPoP {token}"), ("dpop", shown or proof(path, method))]
        return await bot.ask(method, path, body, token="", headers=headers)

    first = await ask("POST", PATH, VALUE)
    nonce = first.headers["dpop-nonce"]
    assert (first.status, "use_dpop_nonce" in first.headers["www-authenticate"]) == (401, True)
    assert (await ask("POST", PATH, VALUE)).status == 200
    used = proof(PATH, "GET")
    assert (await ask("GET", PATH, shown=used)).json["data"]["data"] == VALUE["data"]
    replayed = await ask("GET", PATH, shown=used)
    assert (replayed.status, "password" in repr(replayed.body)) == (401, False)
    assert (newest_entry(world).outcome, newest_entry(world).reasons[0].code) == ("refused", "invalid_dpop_proof")
    for wrong in (
        proof(f"{PATH}-2", "GET"),
        proof(PATH, "POST"),
        "x",
        dpop.make_proof(bot.client.key, method="GET", uri=f"{ISSUER}/v1/{PATH}", now=world.now(), jti="j", nonce=nonce),
    ):
        assert (await ask("GET", PATH, shown=wrong)).status == 401
    plain = await bot.ask("GET", PATH, token="", headers=[("authorization", f"Bearer {token}")])
    assert (plain.status, await bot.status("GET", PATH, token=token)) == (403, 403)
    shown = (await ask("GET", "auth/token/lookup-self")).json["data"]
    assert (shown["renewable"], shown["id"]) == (False, "")
    for verb in ("renew", "revoke"):
        assert (await ask("POST", f"auth/token/{verb}-self")).status == 403

    async def log_in() -> Answer:
        headers = [("dpop", proof("auth/jwt/login", "POST"))]
        return await bot.ask("POST", "auth/jwt/login", {"jwt": token}, token="", headers=headers)

    assert (await log_in()).status == 400
    assert (newest_entry(world).outcome, newest_entry(world).reasons[0].code) == ("refused", "not_exempt")
    await run(world, lambda a: trust.allow_bearer(a, "bot", "ostiary"))
    logged_in = await log_in()
    bot.token = logged_in.json["auth"]["client_token"]
    assert await bot.status("GET", PATH) == 200
    assert world.db.read().all(ACRS) == [(BEARER,)], "a proof at the login is no proof at each use"
    await run(world, lambda a: trust.forbid_bearer(a, "bot", "ostiary"))
    assert await bot.status("GET", PATH) == 403


@pytest.mark.parametrize("method", ["jwt", "approle"])
async def test_a_wrong_login_gives_no_token(world: World, bot: VaultAgent, method: str) -> None:
    made = await run(world, lambda a: trust.create_secret(a, "bot"))
    bearer = await bot.bearer()
    wrong: list[Any] = [
        {},
        [],
        "x",
        {"jwt": 1, "role_id": 1, "secret_id": 1},
        {"jwt": "", "role_id": "", "secret_id": ""},
    ]
    if method == "jwt":
        wrong += [{"jwt": one} for one in (f"{bearer}x", bearer[:-8], f"x {bearer}", bot.token, "é", "\ud800", "a.b.c")]
        wrong += [{"jwt": bearer, "role": "other"}]
    else:
        wrong += [{"role_id": role, "secret_id": made.secret} for role in ("bot", "ag_x", "\ud800", made.holder + "\n")]
        wrong += [{"role_id": made.holder, "secret_id": one} for one in (made.secret[:-1], made.id, bearer)]
    for body in wrong:
        answer = await bot.ask("POST", f"auth/{method}/login", body, token="")
        assert (answer.status, "auth" in answer.json) == (400, False), body
        assert made.secret.encode() not in answer.body
        assert newest_entry(world).outcome == "refused"
    assert await bot.status("GET", f"auth/{method}/login", token="") == 405


async def test_a_guard_cannot_use_secrets(world: World, app: ASGIApp, bot: VaultAgent) -> None:
    id, key = await guard(world)
    client = Client(app, world, id, key)
    await client.ask()
    token = (await client.token(resource=API, scope="ostiary:feed"))["access_token"]
    nonce: str | None = None
    for status in (401, 403):
        proof = client.proof(method="GET", uri=f"{ISSUER}/v1/{PATH}", access_token=token, nonce=nonce)
        headers = [("authorization", f"DPoP {token}"), ("dpop", proof)]
        answer = await bot.ask("GET", PATH, token="", headers=headers)
        assert answer.status == status
        nonce = answer.headers.get("dpop-nonce")
    assert newest_entry(world).reasons[0].code == "token_refused"


async def test_a_refused_request_leaves_no_credential_in_the_ledger(world: World, bot: VaultAgent) -> None:
    made = await run(world, lambda a: trust.create_secret(a, bot.name))
    swapped = {"role_id": made.secret, "secret_id": made.holder}
    assert await bot.status("POST", "auth/approle/login", swapped) == 400
    assert made.secret not in repr(newest_entry(world))
    for path in (bot.token, f"auth/token/lookup/{bot.token}"):
        assert await bot.status("GET", path) in (403, 405)
        assert bot.token not in repr(newest_entry(world))
        assert "hvs." in (newest_entry(world).object or ""), "the form of the path stays"


@pytest.mark.parametrize("ending", ["%0a", "%0d", "%0d%0a"])
async def test_a_path_with_a_line_break_is_refused(world: World, bot: VaultAgent, ending: str) -> None:
    assert (await bot.ask("POST", PATH, VALUE)).status == 200
    answer = await bot.ask("GET", PATH + ending.replace("%0a", "\n").replace("%0d", "\r"))
    assert (answer.status, [*answer.json]) == (400, ["errors"]), answer.body
    assert b"password" not in answer.body
    assert await bot.status("GET", "\n", token="") == 400
