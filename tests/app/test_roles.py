"""Roles are policies: what each role may do on each route, who has a role, and the last administrator."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from harness.registry_fixtures import newest_entry
from ostiary.cli.roles import grant_role
from ostiary.protocol.errors import Forbidden
from ostiaryd.app import ROUTES, _endpoint, build_app, facts_of
from ostiaryd.ground.http.edge import Call, Reply
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.policy import flows as policy
from ostiaryd.policy.model import starter_files
from ostiaryd.policy.model.load import load
from ostiaryd.policy.model.roles import Holder
from ostiaryd.policy.model.safeguards import extend
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, READ, SELF, Caller
from ostiaryd.trust.model.sessions import SESSION_COOKIE
from tests.support.api_fixtures import ISSUER, Answer, client, register, send
from tests.support.page_client import signed_in
from tests.support.role_fixtures import administrator, ask, person
from tests.support.sources import ROOT
from tests.support.trust_fixtures import API, proof_of

__all__ = ["client"]
TABLE = ROOT / "docs" / "reference" / "roles.md"
ROLES = ("", "viewer", "approver", "operator", "auditor", "administrator")
NOW = 1_800_000_000_000_000


def access_of(role: str, route: Any) -> str:
    """The access of a person with that role alone to a route: `-`, `own`, `read`, `all`, or `yes`."""
    facts, roles = facts_of(route), starter_files().ready.roles
    holder = Holder("pe_1", "ann", frozenset({role} if role else ()), "", ())

    def may(scope: str) -> bool:
        return roles.may_use(holder, facts.entity(scope), now=NOW).allowed

    if route.scope != SELF:
        return "yes" if may(route.scope) else "-"
    if may(ADMIN):
        return "all"
    if route.method == "GET" and may(READ):
        return "read"
    return "own" if may(SELF) else "-"


def test_the_documentation_states_the_access_of_each_role_to_every_route() -> None:
    rows = re.findall(r"^\| `(\w+) (\S+)` \|(.+)\|$", TABLE.read_text("utf-8"), re.M)
    said = {(method, path): [cell.strip() for cell in cells.split("|")] for method, path, cells in rows}
    found = {
        (route.method, route.path): [access_of(role, route) for role in ROLES]
        for route in ROUTES
        if route.scope and route.scope not in ("ostiary:feed", "ostiary:ssf.read", "ostiary:ssf.manage")
    }
    assert said == found, "review the change, then write it to docs/reference/roles.md"


def test_each_list_of_roles_has_every_role() -> None:
    starter = starter_files()
    names = starter.ready.roles.names
    assert {*ROLES} == {"", *names}
    assert names <= set(re.findall(r"\w+", grant_role.__doc__ or ""))
    consents = (ROOT / "src/ostiaryd/policy/roles/role-consents.cedar").read_text("utf-8")
    assert set(re.findall(r'Role::"(\w+)"', consents)) == names
    assert names <= set(re.findall(r"^\| `(\w+)` \|", TABLE.read_text("utf-8"), re.M))


def test_no_role_permits_the_routes_for_guards_and_receivers() -> None:
    for route in ROUTES:
        if route.scope in ("ostiary:feed", "ostiary:ssf.read", "ostiary:ssf.manage"):
            assert {access_of(role, route) for role in ROLES} == {"-"}


def test_no_role_except_administrator_permits_routes_that_grant_rights() -> None:
    """No role but the administrator's changes what anybody may do."""
    grants = re.compile(
        r"/(persons|teams|roles|login-providers|policies|keys|resources|peps|issuers|webhooks"
        r"|workloads|trust-\w+|authorities)\b"
    )
    for route in ROUTES:
        if route.scope == ADMIN and route.method != "GET" and not route.stops and grants.search(route.path):
            reached = {role for role in ROLES if access_of(role, route) != "-"}
            assert reached == {"administrator"} | ({"operator"} if route.path.endswith("/test") else set()), route.path


async def test_a_person_with_a_key_uses_the_api_within_the_roles_of_the_person(world: World) -> None:
    ann = await person(world, "bea")
    assert (await ask(ann, "GET", "/api/v1/approvals")).status == 200
    refused = await ask(ann, "GET", "/api/v1/agents")
    assert (refused.status, refused.error) == (403, "role_required")
    assert "roles that permit it: administrator, approver, auditor, operator, viewer;" in refused.json["hint"]
    assert newest_entry(world).person == ann.id
    viewer = await person(world, "vic", "viewer")
    assert (await ask(viewer, "GET", "/api/v1/agents")).status == 200
    assert (await ask(viewer, "GET", "/api/v1/tasks")).status == 200
    assert (await ask(viewer, "GET", "/api/v1/audit")).error == "role_required"
    assert (await ask(viewer, "POST", "/api/v1/persons", {"name": "new"})).error == "role_required"
    admin = await person(world, "ada", "administrator")
    assert (await ask(admin, "POST", "/api/v1/persons", {"name": "new"})).status == 201
    assert newest_entry(world).person == admin.id


async def test_a_viewer_gets_only_the_read_scope_on_routes_for_own_objects(world: World) -> None:
    vic = await person(world, "vic", "viewer")
    caller = Caller(kind="person", id=vic.id, name="vic", owner=None, scopes=frozenset())
    routes = [facts_of(one) for one in ROUTES if one.scope == SELF and one.allows_people]
    assert {"GET", "POST"} <= {route.method for route in routes}
    for route in routes:
        permitted = policy.authorize_person(world.db.read(), caller, route, now=world.now(), acr="")
        assert permitted.scopes == ({READ} if route.method == "GET" else set()), route


async def test_a_role_of_a_team_applies_to_a_person_only_during_the_membership(world: World) -> None:
    vic = await person(world, "vic")
    await act(world, "test.team", lambda act: registry.create_team(act, name="sec", members=["vic", "ann"]))
    await act(world, "test.grant", lambda act: registry.grant_role(act, "sec", "auditor"))
    assert (await ask(vic, "GET", "/api/v1/audit")).status == 200
    await act(world, "test.leave", lambda act: registry.remove_member(act, "sec", "vic"))
    assert (await ask(vic, "GET", "/api/v1/audit")).error == "role_required"


async def test_roles_are_granted_listed_and_revoked(world: World) -> None:
    admin = await person(world, "ada", "administrator")
    await person(world, "vic")
    wrong = await ask(admin, "POST", "/api/v1/roles", {"subject": "vic", "role": "operater"})
    assert (wrong.status, wrong.json["hint"]) == (422, "did you mean `operator`?")
    assert (await ask(admin, "POST", "/api/v1/roles", {"subject": "vic", "role": "operator"})).status == 201
    listed = (await ask(admin, "GET", "/api/v1/roles")).json["roles"]
    assert {(one["name"], one["role"]) for one in listed} >= {("ada", "administrator"), ("vic", "operator")}
    assert (await ask(admin, "DELETE", "/api/v1/roles/vic/operator")).status == 200
    assert (await ask(admin, "DELETE", "/api/v1/roles/vic/operator")).status == 404
    assert (await ask(admin, "GET", "/api/v1/roles/names")).json["roles"] == sorted(filter(None, ROLES))


async def test_the_role_of_the_last_administrator_cannot_be_revoked(world: World) -> None:
    admin = await person(world, "ada", "administrator")
    await act(world, "test.revoke", lambda act: registry.revoke_role(act, "admin", "administrator"))
    kept = await ask(admin, "DELETE", "/api/v1/roles/ada/administrator")
    assert (kept.status, kept.error) == (409, "last_administrator")
    assert "role grant" in kept.json["hint"]
    await person(world, "ben", "administrator")
    assert (await ask(admin, "DELETE", "/api/v1/roles/ada/administrator")).status == 200
    assert (await ask(admin, "GET", "/api/v1/agents")).error == "role_required"
    agent = await administrator(world)
    assert (await ask(agent, "DELETE", "/api/v1/roles/ben/administrator")).status == 200


async def test_no_act_of_a_person_leaves_the_server_without_an_administrator(world: World) -> None:
    admin = await person(world, "ada")
    await act(world, "test.team", lambda act: registry.create_team(act, name="sec", members=["ada"]))
    await act(world, "test.grant", lambda act: registry.grant_role(act, "sec", "administrator"))
    await act(world, "test.revoke", lambda act: registry.revoke_role(act, "admin", "administrator"))
    acts = [
        ("DELETE", "/api/v1/roles/sec/administrator", None),
        ("DELETE", "/api/v1/teams/sec/members/ada", None),
        ("POST", "/api/v1/revoke", {"kind": "owner", "id": "ada"}),
        ("POST", "/api/v1/persons/ada/suspend", {}),
    ]
    for method, path, body in acts:
        kept = await ask(admin, method, path, body)
        assert (kept.status, kept.error) == (409, "last_administrator"), path
    assert (await ask(admin, "GET", "/api/v1/roles")).status == 200
    agent = await administrator(world)
    assert (await ask(agent, "DELETE", "/api/v1/teams/sec/members/ada")).status == 200


async def test_a_person_who_left_and_returns_has_no_roles(world: World) -> None:
    await person(world, "ada", "administrator")
    await act(world, "test.leave", lambda act: registry.revoke_owner(act, "ada"))
    back = await act(world, "test.back", lambda act: registry.return_person(act, "ada"))
    assert registry.list_person_roles(world.db.read(), back.person_id) == set()


async def test_an_approver_may_answer_approval_requests_of_every_agent(world: World) -> None:
    app = await person(world, "app", "approver")
    vic = await person(world, "vic", "viewer")
    agent = registry.find_agent(world.db.read(), "reader")
    assert policy.may_answer(world.db.read(), app.id, agent, now=NOW)
    assert not policy.may_answer(world.db.read(), vic.id, agent, now=NOW)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("registered", [True, False])
async def test_an_unregistered_client_acts_only_for_persons_with_a_role(
    world: World, role: str, registered: bool
) -> None:
    person_id = (await person(world, "vic", *filter(None, [role]))).id
    resource = registry.find_resource(world.db.read(), "files")

    def check() -> None:
        policy.check_consent(
            world.db.read(),
            person_id,
            resource,
            client="https://app.example/client",
            is_registered=registered,
            scopes=["files:read"],
            now=NOW,
        )

    if role or registered:
        check()
    else:
        with pytest.raises(Forbidden, match="none of your roles") as refused:
            check()
        assert refused.value.code == "role_required"


PERMIT_ALL = "permit (principal, action, resource);"
FORBID_NIGHT = """permit (principal, action, resource);
@id("no-role-at-night") forbid (principal, action == Ostiary::Action::"use_api", resource)
when { context.now < datetime("2100-01-01") };
"""


def test_a_policy_that_permits_all_actions_gives_a_person_without_roles_no_access() -> None:
    everything = load(extend({"all.cedar": PERMIT_ALL}, ())).ready.roles
    route = next(route for route in ROUTES if route.path == "/api/v1/persons" and route.method == "POST")
    nobody = Holder("pe_1", "ann", frozenset(), "", ())
    assert not everything.may_use(nobody, facts_of(route).entity(ADMIN), now=NOW).allowed


def test_a_policy_set_can_add_restrict_and_leave_out_roles() -> None:
    route = facts_of(next(route for route in ROUTES if route.path == "/api/v1/agents" and route.method == "GET"))
    viewer = Holder("pe_1", "ann", frozenset({"viewer", "helpdesk"}), "", ())
    own = 'permit (principal in Ostiary::Role::"helpdesk", action == Ostiary::Action::"use_api", resource);'

    def allowed(text: str, *left_out: str) -> bool:
        roles = load(extend({"own.cedar": text}, left_out)).ready.roles
        return roles.may_use(viewer, route.entity(READ), now=NOW).allowed

    assert allowed(PERMIT_ALL)
    assert not allowed(PERMIT_ALL, "role-viewer")
    assert allowed(PERMIT_ALL + own, "role-viewer")
    assert not allowed(FORBID_NIGHT)
    assert "helpdesk" in load(extend({"own.cedar": PERMIT_ALL + own}, ())).ready.roles.names


def test_role_policies_decide_nothing_about_agents() -> None:
    policies = load(extend({"all.cedar": FORBID_NIGHT}, ())).policies
    assert "no-role-at-night" not in policies._sources


QUESTION = {
    "subject": {"type": "user", "id": "x"},
    "action": {"name": "read"},
    "resource": {"type": "record", "id": "x"},
}
BODIES: dict[str, Any] = {
    "/access/v1/evaluation": QUESTION,
    "/access/v1/evaluations": QUESTION,
    "/api/v1/decide": QUESTION,
    "/api/v1/kill": {"what": "agent", "name": "x", "why": "a test"},
    "/api/v1/revoke": {"kind": "agent", "id": "x"},
}
"""Valid bodies of the routes whose act authorizes the caller; for all other routes, `{}` reaches the authorization."""


async def refused_routes(world: World, role: str) -> set[Any]:
    """Return the routes that the server refuses to a person with that role alone."""
    vic = await person(world, "vic", *filter(None, [role]))
    app, token = build_app(world), (await vic.token(resource=API))["access_token"]
    refused = set()
    for route in ROUTES:
        if route.scope:
            path = re.sub(r"{[^}]*}", "1", route.path)
            body = json.dumps(BODIES.get(route.path, {})).encode()
            headers = [
                ("authorization", f"DPoP {token}"),
                ("dpop", proof_of(vic, token, path, method=route.method)),
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
            ]
            answer = await send(app, route.method, path, headers=headers, body=body)
            assert answer.status not in ({400, 401, 500} if route.proves_in_act else {401, 500}), (route, answer)
            if answer.status == 403 and b"none of your roles permits" in answer.body:
                refused.add((route.method, route.path))
    return refused


@pytest.mark.parametrize("database", ["sqlite"])  # the gate decides, on either database
@pytest.mark.parametrize("role", ROLES)
async def test_the_server_refuses_a_person_on_exactly_the_routes_without_access(world: World, role: str) -> None:
    expected = {(route.method, route.path) for route in ROUTES if route.scope and access_of(role, route) == "-"}
    assert await refused_routes(world, role) ^ expected == set()


@pytest.mark.parametrize("database", ["sqlite"])  # the gate decides, on either database
async def test_a_policy_that_forbids_every_use_of_the_api_applies_to_every_route(world: World) -> None:
    forbid = '@id("no-api") forbid (principal, action == Ostiary::Action::"use_api", resource);'
    loaded = load(extend({"own.cedar": PERMIT_ALL + forbid}, ()))
    await act(world, "test.put", lambda act: policy.put(act, loaded=loaded, by=None))
    expected = {(route.method, route.path) for route in ROUTES if route.scope}
    assert await refused_routes(world, "administrator") ^ expected == set()


async def test_a_session_uses_the_api_within_its_roles_and_only_from_pages_of_the_same_origin(world: World) -> None:
    await register(world)
    app = build_app(world)
    browser = await signed_in(world, app)
    cookie = ("cookie", f"{SESSION_COOKIE}={browser.cookies[SESSION_COOKIE]}")

    async def request(method: str, path: str, *headers: tuple[str, str], body: bytes = b"") -> Answer:
        sent = [cookie, ("content-type", "application/json"), *headers]
        return await send(app, method, path, headers=sent, body=body)

    ours, other = ("origin", ISSUER), ("origin", "https://evil.example")
    assert (await request("GET", "/api/v1/agents")).error == "role_required"
    await act(world, "test.grant", lambda act: registry.grant_role(act, "ann", "administrator"))
    assert (await request("GET", "/api/v1/agents")).status == 200
    for headers in ((), (other,), (ours, ("sec-fetch-site", "cross-site"))):
        answer = await request("POST", "/api/v1/persons", *headers, body=b'{"name": "new"}')
        assert answer.error == "forged_form", headers
    assert (await request("GET", "/api/v1/agents", other)).error == "forged_form"
    assert (await request("POST", "/api/v1/persons", ours, body=b'{"name": "new"}')).status == 201
    assert (await request("POST", "/api/v1/agents/reader/suspend", ours, body=b"{}")).status == 200
    assert newest_entry(world).person == registry.find_person(world.db.read(), "ann").person_id
    assert (await request("GET", "/api/v1/agents", ("authorization", "DPoP x"))).status == 401


FORBID_AREA = """permit (principal, action, resource);
@id("no-{area}") forbid (principal, action == Ostiary::Action::"use_api", resource)
when {{ resource.area == "{area}" }};
"""
PARTS = {
    "agents": {"agents"},
    "activity": {"decisions"},
    "approvals": {"approvals"},
    "incidents": {"incidents"},
    "findings": {"findings"},
    "kill": {"stops"},
    "feeds": {"guards"},
    "resources": {"guards"},
}
"""Members of the overview by the area whose list they count."""


async def test_an_area_that_policies_forbid_is_left_out_of_the_overview_and_the_agent_table(world: World) -> None:
    vic = await person(world, "vic", "viewer")
    await act(world, "agent.create", lambda act: None)
    whole = (await ask(vic, "GET", "/api/v1/overview")).json
    assert set().union(*PARTS.values()) < whole.keys()
    assert whole["changes"] == {"agent.create": 1}
    for area, members in PARTS.items():
        loaded = load(extend({"own.cedar": FORBID_AREA.format(area=area)}, ()))
        await act(world, "test.put", partial(policy.put, loaded=loaded, by=None))
        shown = (await ask(vic, "GET", "/api/v1/overview")).json
        assert whole.keys() - shown.keys() == members, area
        assert ("agent.create" in shown["changes"]) == (area != "agents")
        table = [(await ask(vic, "GET", f"/api/v1/agent-table{end}")).status for end in ("", "/csv", "/counts")]
        assert table == [403 if area == "agents" else 200] * 3, area


async def test_a_stream_stops_when_its_caller_loses_the_role(world: World) -> None:
    await register(world)
    browser = await signed_in(world, build_app(world))
    await act(world, "test.grant", lambda act: registry.grant_role(act, "ann", "viewer"))
    parts = 0

    async def table(call: Call) -> Reply:
        async def send_parts() -> AsyncGenerator[bytes, None]:
            nonlocal parts
            for parts in range(1, 4):
                if parts == 2:
                    await act(world, "test.revoke", lambda act: registry.revoke_role(act, "ann", "viewer"))
                yield b"%d" % parts

        return Reply(200, send_parts())

    route = replace(next(one for one in ROUTES if one.path == "/api/v1/agent-table/csv"), wire=table)
    cookie = ("cookie", f"{SESSION_COOKIE}={browser.cookies[SESSION_COOKIE]}")
    answer = await send(_endpoint(world, route), "GET", route.path, headers=[cookie], stays=True)
    assert (answer.status, answer.body, parts) == (200, b"1", 2), "the second part is not sent, the third not made"
    assert newest_entry(world).outcome == "refused"
