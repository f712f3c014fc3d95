"""An administrator who puts a policy set cannot lose access to the server without a confirmation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.prepared import PreparedServer
from harness.registry_fixtures import new_jwk, newest_entry, register_agent, run_act
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.policy import flows
from ostiaryd.policy.flows import external_pdp
from ostiaryd.policy.flows.external_pdp import check_at_start
from ostiaryd.policy.flows.loading import load_set
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller
from tests.support.policy_fixtures import Ask

PUT = "/api/v1/policies"
CALLS = {"a.cedar": 'permit (principal, action == Action::"call", resource);'}
HEAD = "package ostiary.tokens\nimport rego.v1\ndefault permit := false\n"
SAID = "under this policy set, you would get no further token for this server: "


@pytest.fixture
async def admin(world: World) -> Caller:
    agent = await run_act(world, lambda a: registry.bootstrap_admin(a, public_jwk=new_jwk()))
    return Caller(kind="agent", id=agent.agent_id, name=agent.name, owner=agent.owner, scopes=agent.scopes, task="tk_1")


async def told(ask: Ask, admin: Caller, files: dict[str, str], query: str = "") -> tuple[int, Any]:
    return await ask(PUT + query, {"files": files}, by=admin)


SETS: dict[str, tuple[dict[str, str], str]] = {
    "nothing permits": (CALLS, "no policy permits the request"),
    "a forbid": (
        {
            "a.cedar": 'permit (principal, action, resource); @id("none") forbid (principal, action, resource) '
            'when { resource has uri && resource.uri like "*/api/v1" };'
        },
        "policy `none` forbids the request",
    ),
    "not for administrators": (
        {
            "a.cedar": 'permit (principal, action == Action::"issue_token", resource) '
            'when { !context.scopes.contains("ostiary:admin") };'
        },
        "no policy permits the request",
    ),
    "rego": ({"a.rego": HEAD + 'forbid contains "nobody" if input.action.name == "issue_token"'}, "nobody"),
    "rego that fails": ({"a.rego": "package ostiary.tokens\npermit := input.context.arguments.x"}, "undefined"),
}


@pytest.mark.parametrize("database", ["sqlite"])  # the engine decides, on either database
@pytest.mark.parametrize("case", SETS)
async def test_a_set_that_locks_its_administrator_out_is_refused_with_the_reason(
    world: World, ask: Ask, admin: Caller, case: str
) -> None:
    files, why = SETS[case]
    before = flows.active_policies(world.db.read()).hash
    status, refused = await told(ask, admin, files)
    assert (status, refused["error"]) == (409, "locks_out")
    assert refused["message"].startswith(SAID)
    assert why in refused["message"]
    assert "--lock-out" in refused["hint"]
    assert flows.active_policies(world.db.read()).hash == before
    assert (newest_entry(world).action, newest_entry(world).outcome) == ("policy.put", "refused")
    status, dry = await told(ask, admin, files, "?dry_run=true")
    assert (status, any(note.startswith(SAID) and why in note for note in dry["notes"])) == (200, True)
    status, made = await told(ask, admin, files, "?lock_out=true")
    assert (status, made["active"]) == (201, True)
    assert any(note.startswith(SAID) for note in made["notes"])


KEEPS: dict[str, dict[str, str]] = {
    "cedar": {"a.cedar": 'permit (principal, action == Action::"issue_token", resource);'},
    "rego alone": {"a.rego": HEAD + 'permit if input.action.name == "issue_token"'},
    "rego for administrators": {"a.rego": HEAD + 'permit if "ostiary:admin" in input.context.scopes'},
    "a watching rego that forbids": {
        "a.cedar": "permit (principal, action, resource);",
        "a.rego": 'package ostiary.tokens\nmode := "watch"\nforbid := true',
    },
}


@pytest.mark.parametrize("database", ["sqlite"])  # the engine decides, on either database
@pytest.mark.parametrize("case", KEEPS)
async def test_a_set_that_does_not_lock_its_administrator_out_is_accepted_without_a_note(
    ask: Ask, admin: Caller, case: str
) -> None:
    status, made = await told(ask, admin, KEEPS[case])
    assert (status, [note for note in made["notes"] if note.startswith(SAID)]) == (201, [])


async def test_the_activation_of_an_earlier_set_that_locks_out_is_refused(
    world: World, ask: Ask, admin: Caller
) -> None:
    _, made = await told(ask, admin, CALLS, "?lock_out=true")
    await told(ask, admin, KEEPS["cedar"])
    activate = PUT + "/{hash}/activate"
    status, refused = await ask(activate, {}, by=admin, hash=made["hash"])
    assert (status, refused["error"]) == (409, "locks_out")
    status, _ = await ask(activate + "?lock_out=true", {}, by=admin, hash=made["hash"])
    assert status == 200
    assert flows.active_policies(world.db.read()).hash == made["hash"]


async def test_the_lock_out_check_applies_to_the_caller_that_puts_the_set(
    world: World, ask: Ask, admin: Caller
) -> None:
    other = await register_agent(world, "other", scopes=["ostiary:admin"])
    files = {"a.cedar": f'permit (principal == Agent::"{other.agent_id}", action == Action::"issue_token", resource);'}
    assert (await told(ask, admin, files))[0] == 409
    by = Caller(kind="agent", id=other.agent_id, name="other", owner=other.owner, scopes=other.scopes)
    assert (await told(ask, by, files))[0] == 201
    person = Caller(kind="person", id="pe_1", name="somebody", owner=None, scopes=frozenset({"ostiary:admin"}))
    assert (await told(ask, person, CALLS))[0] == 201, "who needs no token is not locked out"


async def test_the_lock_out_flag_must_be_true_or_false(ask: Ask, admin: Caller) -> None:
    assert (await told(ask, admin, CALLS, "?lock_out=yes"))[1]["message"] == "`lock_out` must be true or false"


async def test_a_set_that_the_engine_cannot_run_is_logged_at_the_start(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = await load_set(world, {"a.rego": HEAD})
    await act(world, "policy.put", lambda act: flows.put(act, loaded, by=None))
    await check_at_start(world)
    assert not caplog.records
    monkeypatch.setattr(external_pdp, "find_spec", lambda name: None)
    await check_at_start(world)
    [record] = caplog.records
    assert f"set {loaded.hash} cannot run" in record.getMessage()
    assert "OPA's library is not installed" in record.getMessage()
    assert "--starter-policies" in record.getMessage()


def test_starter_policies_let_a_locked_out_administrator_in(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.cedar").write_text(CALLS["a.cedar"])
    with PreparedServer(tmp_path / "data") as server:
        locked = server.ostiary("policy", "put", str(tmp_path / "set"), "--lock-out", "--yes")["hash"]
        (tmp_path / "data" / "admin.json.tokens").unlink()  # a token from before the lock-out still counts
        with pytest.raises(AssertionError, match="no policy permits the request"):
            server.ostiary("policy", "list")
    with PreparedServer(tmp_path / "data", "--starter-policies") as server:
        sets = server.ostiary("policy", "list")
        assert [one["hash"] for one in sets if not one["active"]] == [locked]
    with PreparedServer(tmp_path / "data") as server:
        assert server.ostiary("policy", "list") == sets
