"""The request of a person for a task: stated by who may, kept for good, and never wider in a part of the task."""

from __future__ import annotations

from typing import Any

import pytest

from harness.registry_fixtures import (
    ADMIN,
    agent_caller,
    call_admin_api,
    get_agent,
    newest_entry,
    person_caller,
    register_agent,
)
from ostiary.provenance.intent import Recorded
from ostiaryd.ground.world import World
from ostiaryd.registry.model import Caller
from ostiaryd.tasks import flows
from ostiaryd.tasks.model import Task, standing_id
from tests.support.api_fixtures import Client, oauth_app, register
from tests.support.role_fixtures import administrator, ask

BILL: dict[str, Any] = {"tool": "files/read_file", "value": "bill.txt", "kinds": ["account", "amount"]}
PAY: dict[str, Any] = {"words": "Pay 1000 to Ada as bill.txt says", "own": {"name": "me"}, "endorsed": [BILL]}
TOOLS = [{"name": "read_file", "effect": "read"}, {"name": "write_file", "effect": "write"}]


@pytest.fixture
async def bot(world: World) -> Caller:
    """An agent that may read files; `alice` answers for it."""
    catalogue = {"resource": "files", "tools": TOOLS}
    await call_admin_api(
        world, "POST", "/resources", {"name": "files", "uri": "https://files.example/mcp", "catalogue": catalogue}
    )
    return agent_caller(await register_agent(world, scopes=["files:read"]))


async def start(world: World, *, by: Caller = ADMIN, intent: Any = PAY, **more: Any) -> tuple[int, dict[str, Any]]:
    return await call_admin_api(
        world, "POST", "/tasks", {"agent": "bot", "purpose": "p", "intent": intent} | more, by=by
    )


async def let_speak(world: World, speaks: bool = True) -> None:
    status, shown = await call_admin_api(world, "PATCH", "/agents/bot", {"speaks": speaks})
    assert (status, shown["speaks"]) == (200, speaks)


def kept(world: World, id: str) -> Recorded | None:
    reader = world.db.read()
    return flows.intent_of(reader, flows.find_task(reader, id))


async def refusal_of(world: World, **more: Any) -> str:
    """Return the error code of a refused task, after a check that the refusal is recorded and there is no task."""
    _, refusal = await start(world, **more)
    assert newest_entry(world).outcome == "refused"
    _, page = await call_admin_api(world, "GET", "/tasks?agent=bot")
    assert page["tasks"] == []
    return str(refusal["error"])


async def test_an_administrator_states_the_intent_of_a_person_and_the_ledger_has_its_digest(
    world: World, bot: Caller
) -> None:
    status, task = await start(world, on_behalf_of="alice")
    said = {"said_by": "administrator", "who": ADMIN.id}
    assert (status, task["intent"]) == (201, PAY | said | {"plan": [], "digest": task["intent"]["digest"]})
    detail = newest_entry(world).detail
    assert detail is not None
    assert (detail["intent"], detail["said_by"]) == (task["intent"]["digest"], "administrator")
    assert PAY["words"] not in str(newest_entry(world)), "people's words are not for the ledger"
    recorded = kept(world, task["task_id"])
    assert recorded is not None
    assert recorded.digest == task["intent"]["digest"]
    assert (await call_admin_api(world, "GET", f"/tasks/{task['task_id']}", by=bot))[1]["intent"] == task["intent"]
    assert "intent" not in (await call_admin_api(world, "GET", "/tasks?agent=bot"))[1]["tasks"][0]


async def test_two_tasks_with_the_same_intent_have_different_digests(world: World, bot: Caller) -> None:
    digests = {(await start(world))[1]["intent"]["digest"] for _ in range(2)}
    assert len(digests) == 2


async def test_a_person_states_an_intent_only_for_themselves(world: World, bot: Caller) -> None:
    alice = get_agent(world, "bot").owner
    for more in ({}, {"on_behalf_of": "alice"}):
        status, task = await start(world, by=person_caller(alice), **more)
        assert (status, task["intent"]["said_by"], task["intent"]["who"]) == (201, "person", alice)
    await register_agent(world, "other", owner="bob")
    bob = get_agent(world, "other").owner
    assert (await start(world, by=person_caller(bob)))[0] == 403
    status, task = await start(world, by=person_caller(bob, "ostiary:admin"), on_behalf_of="alice")
    assert (status, task["intent"]["said_by"]) == (201, "administrator")


async def test_a_team_member_cannot_state_the_intent_of_another_member(world: World, bot: Caller) -> None:
    await register_agent(world, "other", owner="bob")
    await call_admin_api(world, "POST", "/teams", {"name": "crew", "members": ["alice", "bob"]})
    await call_admin_api(world, "PATCH", "/agents/bot", {"owner": "crew"})
    bob = get_agent(world, "other").owner
    assert await refusal_of(world, by=person_caller(bob), on_behalf_of="alice") == "forbidden"
    assert (await start(world, by=person_caller(bob), on_behalf_of="bob"))[0] == 201


async def test_an_agent_states_an_intent_only_if_its_operator_permits_it(world: World, bot: Caller) -> None:
    assert await refusal_of(world, by=bot) == "may_not_speak"
    assert await refusal_of(world, by=bot, on_behalf_of="alice") == "may_not_speak"
    await let_speak(world)
    status, task = await start(world, by=bot)
    assert (status, task["intent"]["said_by"], task["intent"]["who"]) == (201, "agent", bot.id)
    await let_speak(world, False)
    status, refusal = await start(world, by=bot)
    assert (status, refusal["error"]) == (403, "may_not_speak")


async def test_the_permission_to_state_intents_applies_to_one_agent_and_its_own_tasks(
    world: World, bot: Caller
) -> None:
    other = agent_caller(await register_agent(world, "other", scopes=["files:read"]))
    await let_speak(world)
    status, refusal = await start(world, agent="other", by=other)
    assert (status, refusal["error"]) == (403, "may_not_speak")
    _, shown = await call_admin_api(world, "GET", "/agents/other")
    assert shown["speaks"] is False
    assert (await start(world, agent="other", by=bot))[0] == 403, "nor does it speak for another agent's person"


async def test_an_agent_cannot_permit_itself_to_state_an_intent(world: World) -> None:
    agent, key = await register(world)
    reader, admin = Client(oauth_app(world), world, agent.agent_id, key), await administrator(world)
    path = f"/api/v1/agents/{agent.agent_id}"
    refused = await ask(reader, "PATCH", path, {"speaks": True})
    assert (refused.status, refused.error) == (403, "insufficient_scope")
    assert get_agent(world, "reader").speaks is False
    assert (await ask(admin, "PATCH", path, {"speaks": True})).status == 200
    assert get_agent(world, "reader").speaks is True


async def test_a_child_task_has_the_intent_of_its_parent_or_a_narrower_intent(world: World, bot: Caller) -> None:
    _, whole = await start(world)
    _, same = await call_admin_api(world, "POST", "/tasks", {"purpose": "p", "parent": whole["task_id"]}, by=bot)
    assert same["intent"] == whole["intent"], "of an agent that may not speak for anybody"
    less = {"words": "Pay 1000 to Ada"}
    status, part = await start(world, by=bot, parent=same["task_id"], intent=less)
    assert (status, part["intent"]["words"], part["intent"]["said_by"]) == (201, less["words"], "administrator")
    assert "endorsed" not in part["intent"]
    status, refusal = await start(world, by=bot, parent=part["task_id"])
    assert (status, refusal["error"]) == (403, "widens"), "what was left out does not come back"


WRITE = {"tool": "files/write_file"}


async def test_the_server_plans_the_tools_that_the_words_of_an_intent_suggest(world: World, bot: Caller) -> None:
    await call_admin_api(world, "PATCH", "/agents/bot", {"scopes": ["files:read", "files:write"]})
    _, task = await start(world, intent={"words": "Write the file report.txt"})
    assert task["intent"]["plan"] == [WRITE]
    for words in ("Read bill.txt to me", "Schreib bericht.txt", "xyzzy"):
        status, task = await start(world, intent={"words": words})
        assert (status, task["intent"]["plan"]) == (201, []), words
    _, edited = await start(world, intent={"words": "xyzzy", "plan": [WRITE | {"most": "5"}]})
    assert edited["intent"]["plan"] == [WRITE | {"most": "5"}], "a plan that is given stands"
    _, bounded = await start(world, intent={"words": "Write the file report.txt"}, scopes=["files:read"])
    assert bounded["intent"]["plan"] == [], "what the task may not do is not planned"


async def test_the_plan_of_a_child_task_stays_within_the_plan_of_its_parent(world: World, bot: Caller) -> None:
    await call_admin_api(world, "PATCH", "/agents/bot", {"scopes": ["files:read", "files:write"]})
    words = "Read bill.txt and write the file report.txt"
    _, whole = await start(world, intent={"words": words})
    _, narrow = await start(world, intent={"words": words, "plan": []})
    said = {"words": "write the file report.txt"}
    for above, expected in ((whole, [WRITE]), (narrow, [])):
        _, part = await start(world, by=bot, parent=above["task_id"], intent=said)
        assert part["intent"]["plan"] == expected
        _, same = await call_admin_api(world, "POST", "/tasks", {"purpose": "p", "parent": above["task_id"]}, by=bot)
        assert same["intent"]["plan"] == expected
    status, refusal = await start(world, by=bot, parent=narrow["task_id"], intent=said | {"plan": [WRITE]})
    assert (status, refusal["error"]) == (403, "widens")


@pytest.mark.parametrize(
    "intent",
    [
        PAY | {"words": "Pay 100"},
        PAY | {"words": "Pay 1000 to Eve"},
        PAY | {"own": {"name": "me", "account": "DE1"}},
        PAY | {"endorsed": [BILL | {"kinds": ["account", "address"]}]},
        PAY | {"endorsed": [BILL, BILL | {"value": "poison.txt"}]},
    ],
)
async def test_a_child_task_cannot_widen_the_intent_of_its_parent(
    world: World, bot: Caller, intent: dict[str, Any]
) -> None:
    await let_speak(world)  # which is about its own tasks
    _, whole = await start(world)
    for by in (bot, ADMIN):
        status, refusal = await start(world, by=by, parent=whole["task_id"], intent=intent)
        assert (status, refusal["error"]) == (403, "widens")


async def test_a_child_of_a_task_without_an_intent_cannot_have_an_intent(world: World, bot: Caller) -> None:
    await let_speak(world)
    _, whole = await start(world, intent=None)
    assert "intent" not in whole
    standing = standing_id(get_agent(world, "bot").agent_id)
    for parent in (whole["task_id"], standing):
        for by in (bot, ADMIN):
            status, refusal = await start(world, by=by, parent=parent)
            assert (status, refusal["error"]) == (403, "widens")


async def test_an_intent_is_not_changed_by_the_renewal_or_the_end_of_its_task(world: World, bot: Caller) -> None:
    _, task = await start(world)
    path = f"/tasks/{task['task_id']}"
    before = kept(world, task["task_id"])
    assert (await call_admin_api(world, "POST", f"{path}/renew", {"ttl": 7200, "intent": PAY}, by=bot))[0] == 400
    assert (await call_admin_api(world, "POST", f"{path}/renew", {"ttl": 7200}, by=bot))[1]["intent"] == task["intent"]
    await call_admin_api(world, "POST", f"{path}/end", {}, by=bot)
    assert kept(world, task["task_id"]) == before


@pytest.mark.parametrize(
    "tool",
    ["files/delete_everything", "nowhere/read_file", "files/write_file"],
    ids=["no tool", "no resource", "scope"],
)
async def test_an_intent_that_endorses_a_document_outside_the_task_is_refused(
    world: World, bot: Caller, tool: str
) -> None:
    assert await refusal_of(world, intent=PAY | {"endorsed": [BILL | {"tool": tool}]}) == "invalid_intent"


async def test_a_malformed_intent_is_refused_and_starts_no_task(world: World, bot: Caller) -> None:
    for intent in ({}, {"words": ""}, {"words": "a\x1bb"}, PAY | {"said_by": "person"}):
        status, refusal = await start(world, intent=intent)
        assert (status, refusal["error"]) == (422, "invalid_intent")
    assert (await call_admin_api(world, "GET", "/tasks?agent=bot"))[1]["tasks"] == []
    status, refusal = await start(world, intent={"words": "a" * (2 << 20)})
    assert status == 413, "larger than a request may be"


async def test_a_large_intent_is_stored_once_for_a_tree_of_tasks(world: World, bot: Caller) -> None:
    _, whole = await start(world, intent={"words": "word " * 3000})
    below = [whole]
    for _ in range(3):
        body = {"purpose": "p", "parent": below[-1]["task_id"]}
        below.append((await call_admin_api(world, "POST", "/tasks", body, by=bot))[1])
    tasks: list[Task] = [flows.find_task(world.db.read(), one["task_id"]) for one in below]
    assert len({task.intent for task in tasks}) == 1
