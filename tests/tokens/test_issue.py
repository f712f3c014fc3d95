"""Token issuance: the task and the end of a token, policies, ledger entries, and the cost of a request."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from harness.clock import START, Clock
from harness.registry_fixtures import newest_entry
from ostiary.authorization.budget import MAX_BUDGETS, MAX_LIMITS, parse_limits
from ostiary.authorization.claims import AccessClaims
from ostiary.protocol import jose
from ostiaryd.ground.database import Sql
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.policy import flows as policies
from ostiaryd.policy.flows.entity_lookup import widest_claims
from ostiaryd.policy.model import load
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from ostiaryd.registry.store import holdings
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, TaskSpec, standing_id
from ostiaryd.tokens.flows.mint import mint
from tests.support.api_fixtures import (
    FILES,
    SECOND,
    Answer,
    Client,
    claims_of,
    guard,
    oauth_app,
    reconfigured,
    register,
)

LIFE = 300


async def start(client: Client, **said: Any) -> Task:
    return await act(
        client.world,
        "task.start",
        lambda act: tasks.start(act, TaskSpec(agent=client.id, purpose="reads a report", **said)),
    )


def test_an_evaluation_has_all_claims_of_a_token_except_those_of_one_token_only() -> None:
    def named(function: Callable[..., Any]) -> set[str | None]:
        calls = [node for node in ast.walk(ast.parse(inspect.getsource(function))) if isinstance(node, ast.Call)]
        return {word.arg for node in calls if ast.unparse(node.func) == "AccessClaims" for word in node.keywords}

    of_one_token = {"acr", "amr", "auth_time", "budgets", "cnf", "may_act", "policy", "registration"}
    assert {*AccessClaims.__struct_fields__} - named(mint) == {"nbf"}
    assert named(mint) - named(widest_claims) == of_one_token


async def test_a_token_without_a_stated_task_is_for_the_standing_task(client: Client) -> None:
    standing = standing_id(registry.find_agent(client.world.db.read(), client.id).agent_id)
    assert claims_of((await client.token())["access_token"])["task"] == standing
    assert claims_of((await client.token(task=standing))["access_token"])["task"] == standing


async def test_a_token_for_an_unknown_foreign_or_ended_task_is_refused(client: Client, clock: Clock) -> None:
    other, _ = await register(client.world, name="other")
    foreign = await act(
        client.world, "task.start", lambda act: tasks.start(act, TaskSpec(agent=other.agent_id, purpose="reads"))
    )
    ended, expiring = await start(client), await start(client, ttl_s=20)
    await act(client.world, "task.end", lambda act: tasks.end(act, ended.task_id))
    clock.advance(19)
    assert (await client.ask(task=expiring.task_id)).status == 200
    clock.advance(1)
    unknown = (
        "tk_" + "0" * 32,
        "nonsense",
        foreign.task_id,
        standing_id(other.agent_id),
        ended.task_id,
        expiring.task_id,
    )
    assert [(await client.ask(task=task)).error for task in unknown] == ["invalid_grant"] * 6


async def test_a_task_of_another_agent_gets_the_same_error_as_an_unknown_task(client: Client) -> None:
    other, _ = await register(client.world, name="other")
    foreign = await act(
        client.world, "task.start", lambda act: tasks.start(act, TaskSpec(agent=other.agent_id, purpose="reads"))
    )
    of_another, of_nobody = [await client.ask(task=id) for id in (foreign.task_id, "tk_" + "0" * 32)]
    assert of_another.json == of_nobody.json


async def test_scopes_of_the_token_lie_within_those_of_the_task(client: Client) -> None:
    task = await start(client, scopes=["files:read"])
    assert (await client.token(task=task.task_id))["scope"] == "files:read"
    refused = await client.ask(task=task.task_id, scope="files:write")
    assert (refused.error, "the task lacks the scopes" in refused.json["error_description"]) == ("invalid_scope", True)
    mistyped = await client.ask(task=task.task_id, scope="files:raed")
    assert (mistyped.error, "did you mean `files:read`?" in mistyped.json["error_description"]) == (
        "invalid_scope",
        True,
    )


async def test_a_scope_that_an_agent_has_lost_is_lost_to_its_tasks(client: Client) -> None:
    task = await start(client, scopes=["files:read", "files:write"])
    await act(client.world, "agent.change", lambda act: registry.set_scopes(act, client.id, ["files:read"]))
    assert (await client.token(task=task.task_id))["scope"] == "files:read"


@pytest.mark.parametrize(
    ("left_us", "seconds"), [(301 * SECOND, 300), (300 * SECOND, 300), (300 * SECOND - 1, 299), (SECOND, 1)]
)
async def test_a_token_ends_with_its_task_in_whole_seconds(
    client: Client, clock: Clock, left_us: int, seconds: int
) -> None:
    task = await start(client, ttl_s=600)
    assert task.expires_at is not None
    clock.now = task.expires_at - left_us
    got = await client.token(task=task.task_id)
    claims = claims_of(got["access_token"])
    assert (got["expires_in"], claims["exp"] - claims["iat"]) == (seconds, seconds)
    assert claims["exp"] * SECOND <= task.expires_at


async def test_a_token_for_less_than_a_second_is_not_issued(client: Client, clock: Clock) -> None:
    task = await start(client, ttl_s=20)
    clock.advance(19, us=1)
    assert (await client.ask(task=task.task_id)).error == "invalid_grant"


async def test_a_token_ends_with_its_agent_and_with_its_key(client: Client) -> None:
    def shorten(act: Any) -> None:
        registry.set_end(act, client.id, START + 60 * SECOND)

    def rotate(act: Any) -> None:
        registry.rotate_key(act, client.id, dict(jose.generate("ES256").public.jwk), overlap_s=30)

    await act(client.world, "agent.change", shorten)
    assert (await client.token())["expires_in"] == 60
    await act(client.world, "key.rotate", rotate)
    assert (await client.token())["expires_in"] == 30


async def test_a_key_is_refused_from_the_instant_of_its_end_on(client: Client, clock: Clock) -> None:
    newer = dict(jose.generate("ES256").public.jwk)
    await act(client.world, "key.rotate", lambda act: registry.rotate_key(act, client.id, newer, overlap_s=30))
    clock.advance(29)
    assert (await client.ask()).status == 200
    clock.advance(1)
    assert (await client.ask()).error == "invalid_client"


async def test_a_revoked_key_gets_no_token(client: Client) -> None:
    other = jose.generate("ES256")
    await act(client.world, "key.add", lambda act: registry.add_key(act, client.id, dict(other.public.jwk)))
    await act(client.world, "key.revoke", lambda act: registry.revoke_key(act, client.key.public.thumbprint))
    assert (await client.ask()).error == "invalid_client"
    answer = await client.ask(client_assertion=client.assertion(key=other), proof=client.proof(key=other))
    assert answer.status == 200


async def test_an_agent_with_two_keys_must_name_the_key_of_its_assertion(client: Client) -> None:
    second = jose.generate("EdDSA", kid="second")
    await act(client.world, "key.add", lambda act: registry.add_key(act, client.id, dict(second.public.jwk)))
    for key in (client.key, second):
        nameless = client.assertion(key=key, header={"kid": None})
        assert (await client.ask(client_assertion=nameless)).error == "invalid_client"
    for key, kid in ((client.key, None), (second, None), (second, second.public.thumbprint)):
        header = {} if kid is None else {"kid": kid}
        assert (await client.ask(client_assertion=client.assertion(key=key, header=header))).status == 200


@pytest.mark.parametrize("verb", [Verb.SUSPEND, Verb.QUARANTINE, Verb.REVOKE, Verb.DECOMMISSION])
async def test_only_an_active_agent_gets_a_token_and_only_its_key_learns_the_state(client: Client, verb: Verb) -> None:
    await act(client.world, "agent.move", lambda act: registry.set_agent_state(act, client.id, verb))
    state = registry.find_agent(client.world.db.read(), client.id).state
    own = await client.ask()
    assert (own.error, str(state) in own.json["error_description"]) == ("invalid_client", True)
    stranger = await client.ask(client_assertion=client.assertion(key=jose.generate("ES256")))
    assert str(state) not in stranger.json["error_description"]


async def test_an_agent_that_has_expired_gets_no_token(client: Client, clock: Clock) -> None:
    await act(client.world, "agent.change", lambda act: registry.set_end(act, client.id, START + 60 * SECOND))
    clock.advance(59)
    assert (await client.ask()).status == 200
    clock.advance(1)
    assert (await client.ask()).error == "invalid_client"


async def test_a_policy_that_forbids_issuance_refuses_the_token(client: Client) -> None:
    rule = 'permit(principal, action, resource);\nforbid(principal, action == Action::"issue_token", resource);\n'
    loaded = load({"rules.cedar": rule})
    await act(client.world, "policy.put", lambda act: policies.put(act, loaded, by=None))
    refused = await client.ask()
    assert (refused.status, refused.error) == (400, "access_denied")
    assert newest_entry(client.world).policy == loaded.hash


async def test_the_token_names_the_policies_under_which_it_was_issued(client: Client) -> None:
    token = (await client.token())["access_token"]
    assert claims_of(token)["policy"] == policies.active_policies(client.world.db.read()).hash


async def test_the_guard_of_a_resource_gets_a_token_only_for_its_feed(client: Client) -> None:
    id, key = await guard(client.world)
    guard_ = Client(client.app, client.world, id, key, client.nonce)
    got = await guard_.token()
    claims = claims_of(got["access_token"])
    assert (got["scope"], claims["sub"], claims.get("task")) == ("ostiary:feed", id, None)
    assert claims["aud"] == client.world.config.api
    assert (await guard_.ask(scope="files:read")).error == "invalid_scope"
    assert (await guard_.ask(resource=FILES)).error == "invalid_target"
    assert (await guard_.ask(resource="https://elsewhere.example")).error == "invalid_target"
    assert (await guard_.ask(task="tk_" + id[3:])).error == "invalid_grant"


async def test_the_ledger_entry_of_a_token_names_agent_task_scope_resource_and_key(client: Client) -> None:
    got = await client.token(scope="files:read")
    claims, entry = claims_of(got["access_token"]), newest_entry(client.world)
    assert (entry.action, entry.outcome, entry.agent, entry.owner) == ("token.issue", "ok", client.id, claims["owner"])
    assert (entry.task, entry.resource, entry.token) == (claims["task"], FILES, claims["jti"])
    assert (entry.key, entry.policy) == (client.key.public.thumbprint, claims["policy"])
    assert entry.detail == {"scope": "files:read", "seconds": LIFE}


async def test_the_entry_of_a_refused_authentication_names_no_agent_as_its_caller(client: Client) -> None:
    await client.ask(client_assertion=client.assertion(key=jose.generate("ES256")))
    entry = newest_entry(client.world)
    assert (entry.action, entry.outcome, entry.reasons[0].code) == ("token.issue", "refused", "invalid_client")
    assert (entry.agent, entry.object) == (None, client.id), "only who has shown the key is the agent"


async def test_no_part_of_a_refused_credential_is_in_the_entry_or_the_response(client: Client) -> None:
    assertion, proof = client.assertion(aud="https://other.example"), client.proof()
    refused = await client.ask(client_assertion=assertion, proof=proof)
    for part in (*assertion.split("."), *proof.split(".")):
        assert part not in str(newest_entry(client.world))
        assert part.encode() not in refused.body


async def test_a_token_cannot_be_bound_to_a_key_of_another_party_or_a_revoked_key(client: Client) -> None:
    _, foreign = await register(client.world, name="other")
    _, guards = await guard(client.world)
    second, ended = jose.generate("EdDSA"), jose.generate("EdDSA")

    def change(act: Any) -> None:
        registry.add_key(act, client.id, dict(second.public.jwk))
        registry.add_key(act, client.id, dict(ended.public.jwk))
        registry.revoke_key(act, ended.public.thumbprint)

    await act(client.world, "key.add", change)
    named = {"kid": client.key.public.kid}
    shown = [foreign, guards, ended, second, jose.generate("EdDSA")]
    answers = [
        await client.ask(proof=client.proof(key=key), client_assertion=client.assertion(header=named)) for key in shown
    ]
    assert [answer.error for answer in answers] == ["invalid_dpop_proof"] * 3 + ["", ""]


async def test_a_token_is_recorded_with_its_proof_key_and_its_client_key(client: Client) -> None:
    other = jose.generate("ES256")
    claims = claims_of((await client.token(proof=client.proof(key=other)))["access_token"])
    held = holdings.get_holding(client.world.db.read(), claims["jti"])
    assert held is not None
    assert (held.kind, held.agent, held.task, held.audience) == ("token", client.id, claims["task"], FILES)
    assert (held.jkt, held.client_jkt) == (other.public.thumbprint, client.key.public.thumbprint)
    assert held.expires_at == claims["exp"] * SECOND


async def test_the_lifetime_of_a_token_is_the_configured_lifetime(client: Client) -> None:
    client.app = oauth_app(reconfigured(client.world, token_lifetime_s=10))
    assert (await client.token())["expires_in"] == 10


async def test_a_token_with_more_budgets_than_a_guard_accepts_is_not_issued(client: Client) -> None:
    def limits(prefix: str, count: int) -> list[dict[str, Any]]:
        return [{"kind": "calls", "limit": 9, "tools": [f"files/{prefix}{n}"]} for n in range(count)]

    async def allow(count: int) -> None:
        allowed = parse_limits(limits("day", count))
        await act(client.world, "test.day", lambda act: tasks.set_allowance(act, client.id, allowed))

    task: str | None = None
    for depth in range(MAX_BUDGETS // MAX_LIMITS):
        size = MAX_LIMITS if depth else MAX_LIMITS - 1
        task = (await start(client, parent=task, budget=parse_limits(limits(f"task{depth}_", size)))).task_id
    for day in (0, 1):
        await allow(day)
        claims = claims_of((await client.token(task=task, scope="files:read"))["access_token"])
        assert len(claims["budgets"]) == MAX_BUDGETS - 1 + day
    await allow(2)
    refused = await client.ask(task=task, scope="files:read")
    assert (refused.status, refused.error) == (400, "invalid_request")
    assert refused.json["error_description"].startswith(f"more than {MAX_BUDGETS} budget limits apply to this task; ")
    await allow(1)
    assert (await client.ask(task=task, scope="files:read")).status == 200


async def test_a_token_longer_than_the_maximum_length_is_not_issued(client: Client) -> None:
    async def ask(whole: int, more: int) -> Answer:
        names = [f"{n:03}{'x' * 197}" for n in range(whole)] + ["y" * more]
        detail = {"type": "tool", "locations": [FILES], "actions": names}
        return await client.ask(authorization_details=json.dumps([detail]))

    whole, more, length = 45, 1, 0
    while (await ask(whole + 1, 1)).status == 200:
        whole += 1
    while (answer := await ask(whole, more)).status == 200:  # a letter more makes the token one or two longer
        length = len(answer.json["access_token"])
        more += 1
    assert jose.MAX_TOKEN_BYTES - 1 <= length <= jose.MAX_TOKEN_BYTES
    assert answer.error == "invalid_request"
    assert f"longer than {jose.MAX_TOKEN_BYTES} bytes" in answer.json["error_description"]


async def test_a_second_token_request_reads_no_table_again(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = client.world.writer._connection
    ran: list[str] = []

    def execute(statement: Sql, params: dict[str, Any], *, run: Any = connection.execute) -> Any:
        ran.append(" ".join(statement.sqlite.split()))
        return run(statement, params)

    await client.token()
    monkeypatch.setattr(connection, "execute", execute)
    await client.token()
    tables = [table for text in ran for table in re.findall(r"(?:from|into) (\w+)", text)[:1]]
    own = [table for table in tables if table not in ("entry", "setting", "log_head", "log_history", "loss", "subtree")]
    assert own == ["spent"]


ALIASES = [("ssf.read", "ostiary:ssf.read"), ("ssf.manage", "ostiary:ssf.manage")]


@pytest.mark.parametrize(("alias", "scope"), ALIASES)
@pytest.mark.parametrize("registered", [0, 1])
async def test_an_alias_of_a_scope_stands_for_its_scope(world: World, alias: str, scope: str, registered: int) -> None:
    agent, key = await register(world, name="siem", scopes=((alias, scope)[registered],))
    assert agent.scopes == {scope}
    client = Client(oauth_app(world), world, agent.agent_id, key)
    for asked, spelled in ((alias, alias), (scope, scope), (f"{alias} {scope}", scope), ("", scope)):
        answer = await client.token(scope=asked, resource=world.config.api)
        assert answer["scope"] == spelled, asked
        assert claims_of(answer["access_token"])["scope"] == scope


async def test_an_alias_gives_no_scope_that_the_agent_lacks(world: World) -> None:
    agent, key = await register(world, name="siem", scopes=("ssf.read",))
    client = Client(oauth_app(world), world, agent.agent_id, key)
    await client.token(scope="ssf.read", resource=world.config.api)
    for asked in ("ssf.manage", "ssf.read ssf.manage", "ssf", "ssf.write", "SSF.read", "ssf.read "):
        assert (await client.ask(scope=asked, resource=world.config.api)).error == "invalid_scope", asked
