"""The sequences of requests of clients in the field: a tool for infrastructure as code, a framework for services, and
an operator that copies secrets into a cluster.
"""

from __future__ import annotations

from typing import Any

from ostiaryd.ground.world import World
from tests.secrets.role_fixtures import enter, role_of
from tests.secrets.transit_fixtures import done
from tests.secrets.vault_fixtures import VaultAgent, permit_all


async def test_an_infrastructure_tool_reads_each_object_back_after_writing_it(world: World, bot: VaultAgent) -> None:
    """The tool works under a child token, writes each object, and reads the object back to see whether it differs."""
    await permit_all(world)
    body = {"ttl": "200s", "explicit_max_ttl": "200s", "num_uses": 0, "renewable": False, "display_name": "terraform"}
    made = (await bot.ask("POST", "auth/token/create", {**body, "policies": None})).json["auth"]
    assert (made["policies"], made["lease_duration"], made["renewable"]) == (["ostiary"], 200, False)
    parent, bot.token = bot.token, made["client_token"]
    assert (await done(bot, "GET", "auth/token/lookup-self"))["path"] == "auth/token/create"
    objects: dict[str, dict[str, Any]] = {
        "sys/policies/acl/shop": {"policy": 'path "secret/data/shop/*" { capabilities = ["read"] }'},
        "auth/token/roles/shop": {
            "allowed_policies": ["shop"],
            "allowed_policies_glob": ["shop-*"],
            "disallowed_policies": ["root"],
            "disallowed_policies_glob": [],
            "orphan": False,
            "renewable": True,
            "token_bound_cidrs": ["192.0.2.0/24"],
            "token_explicit_max_ttl": 3600,
            "token_no_default_policy": True,
            "token_num_uses": 5,
            "token_period": 0,
            "token_type": "default-service",
        },
        "secret/metadata/shop/db": {
            "cas_required": True,
            "custom_metadata": {"owner": "shop"},
            "delete_version_after": "24h0m0s",
            "max_versions": 5,
        },
        "transit/keys/shop": {"type": "ecdsa-p521", "exportable": False, "auto_rotate_period": 7200},
    }
    for path, members in objects.items():
        await done(bot, "PUT", path, members)
        shown = await done(bot, "GET", path)
        assert {name: shown[name] for name in members} == members, path
    await done(bot, "POST", "sys/mounts/shop", {"type": "kv", "options": {"version": "2"}, "description": "of shop"})
    mounted = await done(bot, "GET", "sys/mounts/shop")
    assert (mounted["type"], mounted["options"], mounted["description"]) == ("kv", {"version": "2"}, "of shop")
    assert (await done(bot, "GET", "sys/mounts"))["shop/"] == mounted
    for path in ("sys/mounts/shop", "secret/metadata/shop/db", "auth/token/roles/shop", "sys/policies/acl/shop"):
        await done(bot, "DELETE", path)
        assert (await bot.ask("GET", path)).status in (400, 404), path
    await done(bot, "POST", "auth/token/revoke-self")
    assert await bot.status("GET", "auth/token/lookup-self") == 403
    assert await bot.status("GET", "auth/token/lookup-self", token=parent) == 200


async def test_a_service_framework_logs_in_reads_secrets_and_renews_its_token(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    await done(bot, "POST", "secret/data/app/prod", {"data": {"db.password": "s"}})
    await done(bot, "PUT", "sys/policies/acl/app", {"policy": 'path "secret/data/app*" { capabilities = ["read"] }'})
    service = await enter(bot, await role_of(bot, token_ttl="2m", token_policies=["app"]))
    own = await done(service, "GET", "auth/token/lookup-self")
    assert (own["type"], own["renewable"], own["ttl"] > 0) == ("service", True, True)
    mount = await done(service, "GET", "sys/internal/ui/mounts/secret/app/prod")
    assert (mount["path"], mount["options"]["version"]) == ("secret/", "2")
    assert (await done(service, "GET", "secret/data/app/prod"))["data"] == {"db.password": "s"}
    for missing in ("secret/data/app", "secret/data/app/dev"):  # profiles without values of their own
        answer = await service.ask("GET", missing)
        assert (answer.status, answer.json) == (404, {"errors": []}), missing
    for body, seconds in ((None, 120), ({}, 120), ({"increment": "60"}, 60)):
        renewed = (await service.ask("POST", "auth/token/renew-self", body)).json["auth"]
        assert (renewed["lease_duration"], renewed["renewable"]) == (seconds, True)
    await done(service, "POST", "auth/token/revoke-self", {})
    assert await service.status("GET", "secret/data/app/prod") == 403


async def test_a_cluster_operator_copies_secrets_in_both_directions(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    for name in ("a", "b"):
        await done(bot, "PUT", f"secret/data/team/{name}", {"data": {"value": name}})
    assert await done(bot, "GET", "secret/metadata/team?list=true") == {"keys": ["a", "b"]}
    assert (await done(bot, "GET", "secret/data/team/a?version=1"))["data"] == {"value": "a"}
    assert (await done(bot, "GET", "secret/metadata/team/a"))["custom_metadata"] is None
    mark = {"custom_metadata": {"managed-by": "external-secrets"}}
    await done(bot, "PUT", "secret/metadata/team/pushed", mark)
    shown = await done(bot, "GET", "secret/metadata/team/pushed")
    assert (shown["current_version"], shown["custom_metadata"]) == (0, mark["custom_metadata"])
    assert await bot.status("GET", "secret/data/team/pushed") == 404, "the metadata came first"
    await done(bot, "PUT", "secret/data/team/pushed", {"data": {"n": 1}, "options": {"cas": 0}})
    assert await bot.status("PUT", "secret/data/team/pushed", {"data": {"n": 2}, "options": {"cas": 0}}) == 400
    await done(bot, "DELETE", "secret/metadata/team/pushed")
    assert await bot.status("GET", "secret/data/team/pushed") == 404
