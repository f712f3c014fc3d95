"""Tasks and the one revoke by the admin API."""

from __future__ import annotations

from harness.clock import Clock
from harness.registry_fixtures import (
    ADMIN,
    SECOND,
    agent_caller,
    call_admin_api,
    create_holding,
    feed_messages,
    is_live,
    newest_entry,
    person_caller,
    register_agent,
)
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.world import World
from ostiaryd.registry.model import Caller

FILES = [{"type": "tool", "locations": ["https://files.example/"], "actions": ["read_file"]}]


async def test_an_agent_declares_shows_renews_and_ends_its_own_task(world: World) -> None:
    bot = agent_caller(await register_agent(world, scopes=["files:read"]))
    body = {"purpose": "to sort", "bounds": FILES, "on_behalf_of": "alice", "ttl": 60}
    status, task = await call_admin_api(world, "POST", "/tasks", body, by=bot)
    now = world.now() // SECOND
    assert status == 201
    assert task == {
        "task_id": task["task_id"],
        "agent": "bot",
        "agent_id": bot.id,
        "purpose": "to sort",
        "state": "live",
        "on_behalf_of": "alice",
        "scopes": ["files:read"],
        "bounds": FILES,
        "budgets": [],
        "created_at": now,
        "expires_at": now + 60,
        "ended_at": None,
        "parent": None,
        "depth": 0,
        "data_classes": None,
    }
    entry = newest_entry(world)
    assert (entry.action, entry.agent, entry.person, entry.object) == ("task.start", bot.id, bot.owner, task["task_id"])
    path = f"/tasks/{task['task_id']}"
    assert await call_admin_api(world, "GET", path, by=bot) == (200, task)
    assert (await call_admin_api(world, "POST", f"{path}/renew", {"ttl": 120}, by=bot))[1]["expires_at"] == now + 120
    status, ended = await call_admin_api(world, "POST", f"{path}/end", {"outcome": "failed"}, by=bot)
    assert (status, ended["state"], ended["ended_at"]) == (200, "failed", now)
    status, refusal = await call_admin_api(world, "POST", f"{path}/end", {}, by=bot)
    assert (status, refusal["error"]) == (409, "task_ended")


async def test_the_decommissioning_of_an_agent_ends_its_tasks_and_delegated_tasks_in_one_act(world: World) -> None:
    bot, other = await register_agent(world), await register_agent(world, "other", owner="bob")
    _, own = await call_admin_api(world, "POST", "/tasks", {"purpose": "p"}, by=agent_caller(bot))
    delegated = {"purpose": "p", "agent": "other", "parent": own["task_id"]}
    _, child = await call_admin_api(world, "POST", "/tasks", delegated)
    _, kept = await call_admin_api(world, "POST", "/tasks", {"purpose": "p"}, by=agent_caller(other))
    await create_holding(world, other, "tok_child", task=child["task_id"])
    status, moved = await call_admin_api(world, "POST", "/agents/bot/decommission", {"why": "retired"})
    entry = newest_entry(world)
    assert (status, moved["state"], entry.action) == (200, "decommissioned", "agent.decommission")
    assert entry.detail is not None
    assert entry.detail["ended"] == {"task": 2, "token": 1}
    _, listed = await call_admin_api(world, "GET", "/tasks")
    states = {task["task_id"]: task["state"] for task in listed["tasks"]}
    assert states == {own["task_id"]: "cancelled", child["task_id"]: "cancelled", kept["task_id"]: "live"}
    _, live = await call_admin_api(world, "GET", "/tasks?state=live")
    assert [task["task_id"] for task in live["tasks"]] == [kept["task_id"]]
    assert not is_live(world, "tok_child")


async def test_an_agent_sees_only_its_own_tasks_and_a_reader_sees_all_tasks(world: World, clock: Clock) -> None:
    bot, other = await register_agent(world), await register_agent(world, "other", owner="bob")
    for agent in (bot, other, bot):
        clock.advance(1)
        await call_admin_api(world, "POST", "/tasks", {"purpose": "p"}, by=agent_caller(agent))

    async def agents(target: str, by: Caller) -> list[str]:
        _, page = await call_admin_api(world, "GET", target, by=by)
        return [task["agent"] for task in page["tasks"]]

    assert await agents("/tasks", agent_caller(bot)) == ["bot", "bot"]
    assert await agents("/tasks", agent_caller(bot, "ostiary:read")) == ["bot", "other", "bot"]
    assert await agents("/tasks?agent=other", agent_caller(bot, "ostiary:read")) == ["other"]
    assert await agents("/tasks?agent=other", person_caller(other.owner)) == ["other"]
    assert (await call_admin_api(world, "GET", "/tasks?agent=other", by=agent_caller(bot)))[0] == 403
    assert (await call_admin_api(world, "GET", "/tasks", by=person_caller(bot.owner)))[0] == 404
    [task] = (await call_admin_api(world, "GET", "/tasks?agent=other"))[1]["tasks"]
    assert (await call_admin_api(world, "GET", f"/tasks/{task['task_id']}", by=agent_caller(bot)))[0] == 403


async def test_tasks_are_listed_newest_first_in_pages(world: World) -> None:
    bot = await register_agent(world)
    made = [
        (await call_admin_api(world, "POST", "/tasks", {"purpose": "p"}, by=agent_caller(bot)))[1]["task_id"]
        for _ in range(3)
    ]
    _, page = await call_admin_api(world, "GET", "/tasks?limit=2")
    _, rest = await call_admin_api(world, "GET", f"/tasks?limit=2&after={page['next']}")
    assert [task["task_id"] for task in page["tasks"] + rest["tasks"]] == sorted(made, reverse=True)
    assert rest["next"] is None


async def test_the_filter_for_live_tasks_lists_no_ended_task(world: World) -> None:
    bot = await register_agent(world)
    made = [
        (await call_admin_api(world, "POST", "/tasks", {"purpose": "p"}, by=agent_caller(bot)))[1]["task_id"]
        for _ in range(3)
    ]
    await call_admin_api(world, "POST", f"/tasks/{made[1]}/end", {}, by=agent_caller(bot))
    _, page = await call_admin_api(world, "GET", "/tasks?state=live&limit=1")
    _, rest = await call_admin_api(world, "GET", f"/tasks?state=live&after={page['next']}")
    assert [task["task_id"] for task in page["tasks"] + rest["tasks"]] == sorted((made[0], made[2]), reverse=True)
    for target, by, status, message in (
        ("/tasks?state=done", ADMIN, 422, "`state` can only be `live`"),
        ("/tasks?state=live&agent=bot", ADMIN, 422, "`state` cannot be combined with `agent`"),
        ("/tasks?state=live", agent_caller(bot), 403, None),
        ("/tasks?state=live", agent_caller(bot, "ostiary:read"), 200, None),
    ):
        answered, body = await call_admin_api(world, "GET", target, by=by)
        assert (answered, message and body["message"]) == (status, message), target


async def test_a_standing_task_is_shown_by_its_id(world: World) -> None:
    bot = await register_agent(world, scopes=["files:read"])
    status, task = await call_admin_api(world, "GET", f"/tasks/tk_{bot.agent_id[3:]}", by=agent_caller(bot))
    assert (status, task["expires_at"], task["scopes"]) == (200, None, ["files:read"])


async def test_a_revocation_states_its_counts_and_the_feed_number_from_which_guards_deny(world: World) -> None:
    bot = await register_agent(world)
    await create_holding(world, bot, "tok_1")
    status, done = await call_admin_api(world, "POST", "/revoke", {"kind": "agent", "id": "bot"})
    assert (status, done["revoked"], done["committed_at"]) == (200, {"token": 1}, world.now())
    assert done["seq"] == outbox.highest_number(world.db.read())
    assert feed_messages(world, done["seq"] - 1) == [
        {"kind": "agent", "agent": bot.agent_id, "state": "suspended", "epoch": 1}
    ]
    assert not is_live(world, "tok_1")
    assert newest_entry(world).action == "agent.revoke"


async def test_a_wrong_task_request_is_refused_with_its_status_and_error_code(world: World) -> None:
    bot = agent_caller(await register_agent(world))
    for target, body, status, error in (
        ("/tasks", {"purpose": "p", "ttl": 0}, 422, "invalid"),
        ("/tasks", {"purpose": "p", "ttl": "1"}, 400, "malformed"),
        ("/tasks", {"purpose": "p", "bounds": [{"type": "shell"}]}, 422, "invalid_authorization_details"),
        ("/tasks", {"purpose": "p", "bounds": {}}, 400, "malformed"),
        ("/tasks", {"purpose": "p", "scopes": ["files:read"]}, 403, "widens"),
        ("/tasks", {"purpose": "p", "agent": "nobody"}, 404, "not_found"),
        ("/tasks/tk_1/end", {"outcome": "expired"}, 400, "malformed"),
        ("/tasks/tk_1/end", {}, 404, "not_found"),
        ("/revoke", {"kind": "server", "id": "x"}, 400, "malformed"),
        ("/revoke", {"kind": "agent", "id": "bot"}, 403, "forbidden"),
    ):
        answered, refusal = await call_admin_api(world, "POST", target, body, by=bot)
        assert (answered, refusal["error"]) == (status, error), target


async def test_a_scope_that_the_agent_lacks_is_refused_with_the_nearest_scope_of_the_agent(world: World) -> None:
    bot = agent_caller(await register_agent(world, scopes=["files:read", "mail:send"]))
    status, refusal = await call_admin_api(world, "POST", "/tasks", {"purpose": "p", "scopes": ["files:raed"]}, by=bot)
    assert (status, refusal["error"]) == (403, "widens")
    assert "did you mean `files:read`?" in refusal["hint"]
