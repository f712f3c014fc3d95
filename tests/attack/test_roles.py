"""People who want more than their roles: an approver that escalates, an auditor that writes, a person who edits their
own role. Each attempt is refused with `role_required`, leaves an entry, and changes nothing.
"""

from __future__ import annotations

from typing import Any

import pytest

from harness.registry_fixtures import newest_entry
from ostiary.protocol import jose
from ostiaryd.app import build_app
from ostiaryd.ground.database import sql
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.policy.model import starter_files
from ostiaryd.registry import flows as registry
from tests.support.api_fixtures import Answer, send
from tests.support.role_fixtures import ask, person
from tests.support.trust_fixtures import API, proof_of

TABLES = (
    "role_assignment",
    "person",
    "person_key",
    "team",
    "member",
    "policy_set",
    "agent",
    "agent_key",
    "login_provider",
)
ROLES = sorted(starter_files().ready.roles.names - {"administrator"})
"""the roles of the server, from the folder of their policies"""
PERMIT = """@id("mine") permit (principal, action == Ostiary::Action::"use_api", resource);"""


def attempts(me: str) -> list[tuple[str, str, Any]]:
    """Return the ways to more access that a person can try with the API."""
    key = dict(jose.generate("ES256").public.jwk)
    return [
        ("POST", "/api/v1/roles", {"subject": me, "role": "administrator"}),
        ("POST", "/api/v1/roles", {"subject": "sec", "role": "administrator"}),
        ("DELETE", "/api/v1/roles/ada/administrator", None),
        ("PUT", f"/api/v1/teams/admins/members/{me}", None),
        ("POST", "/api/v1/teams", {"name": "mine", "members": [me]}),
        ("PUT", f"/api/v1/persons/{me}/deputy", {"deputy": "ada"}),
        ("POST", "/api/v1/persons/ada/keys", {"jwk": key}),
        ("POST", f"/api/v1/persons/{me}/keys", {"jwk": key}),
        ("POST", "/api/v1/persons/ada/invite", {}),
        ("POST", "/api/v1/persons", {"name": "puppet"}),
        ("DELETE", "/api/v1/persons/ada/login", None),
        ("POST", "/api/v1/persons/ada/suspend", {}),
        ("POST", "/api/v1/policies", {"files": {"mine.cedar": PERMIT}}),
        ("POST", "/api/v1/agents", {"name": "mine", "owner": me, "purpose": "escalates", "scopes": ["ostiary:admin"]}),
        ("POST", "/api/v1/agents/reader/keys", {"jwk": key}),
        ("POST", "/api/v1/agents/reader/secrets", {}),
        ("POST", "/api/v1/agents/reader/join-token", {}),
        ("PATCH", "/api/v1/agents/reader", {"allow": ["ostiary:admin"]}),
        ("PATCH", "/api/v1/agents/reader", {"owner": me}),
        ("PUT", "/api/v1/agents/reader/eligible", {"scopes": ["ostiary:admin"]}),
        ("PUT", "/api/v1/agents/reader/client", {"redirect_uris": ["https://evil.example/callback"]}),
        ("POST", "/api/v1/login-providers", {"name": "mine", "issuer": "https://evil.example"}),
        ("POST", "/api/v1/login-providers/company/accounts", {"person": me, "subject": "ada"}),
        ("POST", "/api/v1/client-invitations", {"uses": 1}),
        ("POST", "/api/v1/keys/rotate", {"use": "token"}),
    ]


def stored(world: World) -> dict[str, Any]:
    reader = world.db.read()
    return {name: sorted(map(repr, reader.all(sql(f"select * from {name}")))) for name in TABLES}


@pytest.mark.parametrize("role", ["", *ROLES])
async def test_no_role_but_the_administrator_gets_more_access(world: World, role: str) -> None:
    await person(world, "ada", "administrator")
    me = await person(world, "eve", *filter(None, [role]))

    def found(act: Any) -> None:
        registry.create_team(act, name="sec", members=["eve"])
        registry.create_team(act, name="admins", members=["ada"])
        registry.grant_role(act, "admins", "administrator")

    await act(world, "test.teams", found)
    before = stored(world)
    for method, path, body in attempts("eve"):
        answer = await ask(me, method, path, body)
        assert (answer.status, answer.error) == (403, "role_required"), (method, path, answer.body)
        entry = newest_entry(world)
        assert (entry.outcome, entry.person) == ("refused", me.id), path
        assert stored(world) == before, path


async def test_a_revoked_role_does_not_count_for_a_token_from_before(world: World) -> None:
    await person(world, "ada", "administrator")
    eve = await person(world, "eve", "auditor")
    token = (await eve.token(resource=API))["access_token"]
    headers = [("authorization", f"DPoP {token}")]

    async def read() -> Answer:
        proof = ("dpop", proof_of(eve, token, "/api/v1/audit", method="GET"))
        return await send(build_app(world), "GET", "/api/v1/audit", headers=[*headers, proof])

    assert (await read()).status == 200
    await act(world, "test.revoke", lambda act: registry.revoke_role(act, "eve", "auditor"))
    assert (await read()).error == "role_required"
