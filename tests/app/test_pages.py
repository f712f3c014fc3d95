"""Every list of the API is returned in pages of at most a megabyte."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import ADMIN, create_person, new_jwk, register_agent
from ostiary.protocol.errors import Invalid, Refused
from ostiaryd.app import ROUTES
from ostiaryd.ground.database import Tx, sql
from ostiaryd.ground.http.edge import Call, Wire, render_admin
from ostiaryd.ground.http.pages import MAX_PAGE_BYTES
from ostiaryd.ground.http.routes import Content
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry.model import Caller

MANY = 130
LONG = "long " * 4000
VALUES = [f"{number:04}" + "x" * 1000 for number in range(30)]
BOUNDS = json.dumps([{"type": "tool", "locations": ["https://f.example/"], "arguments": {"a": {"one_of": VALUES}}}])
LISTS = {
    "/api/v1/account-providers",
    "/api/v1/acme/keys",
    "/api/v1/authorities",
    "/api/v1/certificates",
    "/api/v1/peps",
    "/api/v1/trust-domains",
    "/api/v1/workloads",
    "/api/v1/agent-table",
    "/api/v1/agents",
    "/api/v1/agents/{name}/keys",
    "/api/v1/approvals",
    "/api/v1/agents/{name}/holdings",
    "/api/v1/audit",
    "/api/v1/audit/checkpoints",
    "/api/v1/audit/receipts",
    "/api/v1/clients",
    "/api/v1/connected-accounts",
    "/api/v1/consents",
    "/api/v1/elevations",
    "/api/v1/roles",
    "/api/v1/feeds",
    "/api/v1/findings",
    "/api/v1/incidents",
    "/api/v1/incidents/{id}/timeline",
    "/api/v1/issuers",
    "/api/v1/issuers/{id}/links",
    "/api/v1/kill",
    "/api/v1/leases",
    "/api/v1/persons",
    "/api/v1/persons/{name}/keys",
    "/api/v1/policies",
    "/api/v1/resources",
    "/api/v1/secrets/destinations",
    "/api/v1/secrets/rotations",
    "/api/v1/secrets/uses",
    "/api/v1/streams",
    "/api/v1/tasks",
    "/api/v1/tasks/{id}/tree",
    "/api/v1/teams",
    "/api/v1/threat-lists",
    "/api/v1/webhooks",
}


def row(table: str, **values: Any) -> Any:
    columns = ", ".join(values)
    return sql(f"insert into {table} ({columns}) values ({', '.join(f':{name}' for name in values)})"), values


async def fill(world: World, clock: Clock) -> dict[str, str]:
    """Write many rows with long texts, which only an older server could have written; return ids for the paths."""
    agent = await register_agent(world, "bot", scopes=["files:read"])
    bea = await create_person(world, "bea")
    now = world.now()

    def rows(number: int) -> list[Any]:
        id = f"{number:032x}"
        jwk = json.dumps(new_jwk() | {"more": "x" * 9_000})
        return [
            row(
                "agent",
                agent_id=f"ag_{id}",
                name=f"a{number}",
                owner=bea,
                purpose=LONG,
                kind="assistant",
                provider="",
                model="m" * 5000,
                risk_tier="low",
                segment="default",
                scopes="a:b " * 5000,
                state="active",
                epoch=0,
                changed_at=0,
                created_at=now,
            ),
            row(
                "task",
                task_id=f"tk_{id}",
                agent=agent.agent_id,
                purpose=LONG,
                scopes="",
                bounds=BOUNDS,
                state="live",
                created_at=now,
                expires_at=now + 10**9,
                parent=None if number == 0 else f"tk_{0:032x}",
                depth=int(number > 0),
                elevated="x:y",
            ),
            row("elevation", task=f"tk_{id}", is_break_glass=0, granted_at=now),
            row("agent_key", jkt=f"k{number}", agent=agent.agent_id, alg="ES256", jwk=jwk, added_at=now),
            row("person_key", jkt=f"p{number}", person=bea, alg="ES256", jwk=jwk, added_at=now),
            row("person", person_id=f"pe_{id}", name=f"p{number}", email="e" * 9_000, state="active", created_at=now),
            row("team", team_id=f"te_{id}", name="t" * 9000 + str(number), created_at=now),
            row(
                "resource",
                resource_id=f"rs_{id}",
                name=f"r{number}",
                uri=f"https://r{number}.example/" + "x" * 9000,
                mode="enforce",
                segment="s" * 5000,
                catalogue=LONG,
                catalogue_version=1,
                created_at=now,
            ),
            row(
                "finding",
                finding_id=f"fi_{id}",
                at=now,
                detector="d",
                points=1,
                says=LONG,
                agent=agent.agent_id,
                entries="1 2",
                incident=f"in_{0:032x}",
            ),
            row(
                "incident",
                incident_id=f"in_{id}",
                agent=agent.agent_id,
                owner=bea,
                state="released",
                opened_at=now,
                heard_at=now,
                risk=1,
                says=LONG,
                closed_at=now,
            ),
            row("stop", what="task", value=f"tk_{id}", since=now, why=LONG),
            row(
                "webhook",
                webhook_id=f"wh_{id}",
                url=f"https://w.example/{number}" + "x" * 9000,
                actions="[]",
                created_at=now,
                next_idx=0,
                attempts=0,
                due_at=0,
                busy_until=0,
                delivered=0,
                lost=0,
                failed=LONG,
            ),
            row(
                "lease",
                lease_id=f"l{id}",
                holding=f"le_{id}",
                agent=agent.agent_id,
                task=f"tk_{id}",
                database="d",
                role="r",
                username=f"u{number}",
                statements="{}",
                state="live",
                issued_at=now,
                expires_at=now,
                max_at=now,
                due_at=now,
                attempts=1,
                error=LONG,
            ),
            row(
                "egress_destination",
                name=f"d{number}",
                origin="https://x.example",
                secret="secret/" + "x" * 9000,
                member="m",
                place="header",
                field="authorization",
                template="",
                is_private=0,
                created_at=now,
            ),
        ]

    def write(tx: Tx) -> None:
        for number in range(MANY):
            for statement, values in rows(number):
                tx.run(statement, **values)

    await world.writer.submit(write)

    def note(act: Act) -> None:
        act.entry.detail = {"text": "x" * 30_000}

    for _ in range(60):
        await act(world, "test.long", note)
    clock.advance(1)
    return {"name": "bot", "id": f"tk_{0:032x}", "hash": "x", "index": "1"}


async def get(
    world: World, wire: Wire, path: str, params: dict[str, str], query: str = "", by: Caller = ADMIN
) -> bytes:
    call = Call(world, "GET", path, params, query, [], b"", "rq_test", by)
    try:
        answer = await wire(call)
    except Refused as refusal:
        answer = render_admin(refusal)
    assert isinstance(answer.body, bytes), path
    return answer.body


async def test_every_list_is_returned_in_pages_of_at_most_a_megabyte(world: World, clock: Clock) -> None:
    told = await fill(world, clock)
    wires = {
        route.path: route.wire
        for route in ROUTES
        if route.method == "GET" and not isinstance(route.answers.get(200), Content)
    }
    lists = set()
    for path, wire in wires.items():
        if not path.startswith("/api/v1"):
            continue
        params = {name: told.get(name, "x") for name in re.findall(r"{(\w+)", path)}
        if path.startswith(("/api/v1/persons/", "/api/v1/teams/")):
            params["name"] = "bea"
        if path.endswith("/timeline"):
            params["id"] = f"in_{0:032x}"
        body = await get(world, wire, path, params)
        assert len(body) <= MAX_PAGE_BYTES, path
        answer = json.loads(body)
        if not isinstance(answer, dict) or "next" not in answer:
            continue
        lists.add(path)
        [kind] = answer.keys() - {"next", "connected", "ends"}
        seen = answer[kind]
        for name in ("bounds", "catalogue", "intent", "data_classes"):
            assert all(name not in one for one in seen), (path, name)
        cursor = "before" if path in ("/api/v1/audit", "/api/v1/audit/receipts") else "after"
        while answer["next"] is not None:
            assert seen, path
            body = await get(world, wire, path, params, f"{cursor}={answer['next']}".replace(" ", "+"))
            assert len(body) <= MAX_PAGE_BYTES, path
            answer = json.loads(body)
            seen += answer[kind]
        named = [one for one in seen if one.get("kind") != "finding"]  # findings of a timeline may say the same
        distinct = {json.dumps(one, sort_keys=True) for one in named}
        assert len(distinct) == len(named), path
        if path in (
            "/api/v1/tasks",
            "/api/v1/tasks/{id}/tree",
            "/api/v1/findings",
            "/api/v1/kill",
            "/api/v1/leases",
            "/api/v1/secrets/destinations",
            "/api/v1/webhooks",
        ):
            assert len(seen) == MANY, path
        if path in ("/api/v1/agents", "/api/v1/persons", "/api/v1/agents/{name}/keys"):
            assert len(seen) == MANY + 1 + (path == "/api/v1/persons"), path
    assert lists | {"/api/v1/issuers/{id}/links"} == LISTS


async def test_a_page_has_a_hundred_rows_by_default(world: World, clock: Clock) -> None:
    bot = await register_agent(world, "bot")

    def write(tx: Tx) -> None:
        for number in range(101):
            statement, values = row(
                "task",
                task_id=f"tk_{number:032x}",
                agent=bot.agent_id,
                purpose="p",
                scopes="",
                bounds="[]",
                state="live",
                created_at=1,
                expires_at=1 << 60,
            )
            tx.run(statement, **values)

    await world.writer.submit(write)
    wire = next(route.wire for route in ROUTES if (route.method, route.path) == ("GET", "/api/v1/tasks"))
    for query, rows, more in (("", 100, True), ("limit=101", 101, True), ("limit=102", 101, False)):
        answer = json.loads(await get(world, wire, "/api/v1/tasks", {}, query))
        assert (len(answer["tasks"]), answer["next"] is not None) == (rows, more)
    for query in ("limit=0", "limit=1001", "limit=x", "after=" + "x" * 513):
        assert json.loads(await get(world, wire, "/api/v1/tasks", {}, query))["error"] == "invalid"


async def test_a_list_of_open_objects_accepts_only_the_states_open_and_all(world: World) -> None:
    paths = {f"/api/v1/{name}" for name in ("approvals", "incidents", "findings")}
    lists = {route.path: route.wire for route in ROUTES if route.method == "GET" and route.path in paths}
    assert lists.keys() == paths
    for path, wire in lists.items():
        for state in ("open", "all", "closed", "Open"):
            call = Call(world, "GET", path, {}, f"state={state}", [], b"", "rq_1", ADMIN)
            if state in ("open", "all"):
                assert (await wire(call)).status == 200, path
                continue
            with pytest.raises(Invalid, match="`state` must be `open` or `all`"):
                await wire(call)
