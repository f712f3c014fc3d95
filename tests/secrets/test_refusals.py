"""Requests that the Vault API refuses: paths with two meanings, methods, sizes, foreign folders, changed rows; and
values that appear nowhere.
"""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from harness.clock import Clock
from harness.registry_fixtures import newest_entry
from ostiaryd.ground.database import Sql, sql
from ostiaryd.ground.http.edge import MAX_DEPTH, SMALL_BODY
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.secrets.engines.pki import LONGEST_CRL_S, SHORTEST_CRL_S
from ostiaryd.secrets.engines.transit import MAX_BATCH, MAX_CURVE_BATCH, MAX_RANDOM
from ostiaryd.secrets.flows import transit
from ostiaryd.secrets.model.request import MAX_PATH
from tests.secrets.vault_fixtures import VaultAgent, enter_agent, permit_all

PATH = "secret/data/agents/bot/db"
TOKENS = sql("select count(*) from vault_token")
ROOT = {"common_name": "R"}
CANARY = "c4n4ry-0f-a-s3cr3t-value"
COPY = sql(
    """update secret_version set sealed = (select sealed from secret_version where path = :source),
        wrapped_key = (select wrapped_key from secret_version where path = :source) where path = :target"""
)
SET_SEALED = sql("update secret_version set sealed = :sealed where path = :target")
SET_WRAPPED = sql("update secret_version set wrapped_key = :sealed where path = :target")
SEALED = sql("select sealed from secret_version where path = :target")
SET_MATERIAL = sql("update transit_key_version set sealed = :sealed where name = :name")
COPY_KEY = sql(
    """update transit_key_version set sealed = (select sealed from transit_key_version where name = :source),
        wrapped_key = (select wrapped_key from transit_key_version where name = :source) where name = :name"""
)


async def expect(
    world: World, bot: VaultAgent, status: int, method: str, path: str, body: Any = None, **more: Any
) -> None:
    """Check that a request is refused in the form of Vault, with an entry, and shows no secret."""
    answer = await bot.ask(method, path, body, **more)
    assert answer.status == status, (method, path, answer.body)
    assert list(answer.json) == ["errors"], answer.body
    assert CANARY.encode() not in answer.body
    assert newest_entry(world).outcome == "refused", (method, path)


PATHS = (
    "agents/other/../bot/db",
    "agents/bot/..",
    "../data/agents/bot/db",
    "agents//bot/db",
    "/agents/bot/db",
    "agents/bot/./db",
    "agents/bot/.../db",
    "agents/bot/...",
    "agents%252Fbot/db",
    "agents%2F..%2Fbot/db",
    "agents/bot/%2e%2e/db",
    "agents/bot\\db",
    "agents/bot/d\tb",
    "agents/bot/d\u200bb",
    "agents/bot/d\u202eb",
    "agents/bot/de\u0301",
    "agents/bot/\ue000",
    "agents/bot/d\u2028b",
    "x" * MAX_PATH,
)


async def test_an_ambiguous_path_is_refused(world: World, bot: VaultAgent, clock: Clock) -> None:
    for path in PATHS:
        for method, kind, body in (("GET", "data", None), ("POST", "data", {"data": {}}), ("LIST", "metadata", None)):
            await expect(world, bot, 400, method, f"secret/{kind}/{path}", body)
        await expect(world, bot, 400, "GET", f"kv/{path}")
        clock.advance(60)  # each refusal of a minute is an entry of its own up to a limit
    await bot.login()
    for path in ("agents/bot/db.", "agents/bot/.db", "agents/bot/d.b..."):
        assert await bot.status("POST", f"secret/data/{path}", {"data": {}}) == 200
    assert await bot.status("POST", "secret/data/agents%2Fbot/db", {"data": {"name": "one"}}) == 200
    assert await bot.read("agents/bot/db") == {"name": "one"}, "an encoded slash is a slash, as at Vault"
    longest = "agents/bot/" + "x" * (MAX_PATH - len("secret/data/agents/bot/"))
    assert await bot.status("POST", f"secret/data/{longest}", {"data": {}}) == 200


async def test_an_agent_cannot_access_the_folder_of_another_agent(world: World, app: ASGIApp, bot: VaultAgent) -> None:
    other = await (await enter_agent(world, app, "other")).login()
    assert await bot.status("POST", PATH, {"data": {"password": CANARY}}) == 200
    assert await bot.status("POST", "kv/agents/bot/db", {"password": CANARY}) == 204
    secret = "agents/bot/db"
    for method, path, body in (
        ("GET", "secret/data/agents%2Fbot/db", None),
        ("GET", f"secret/data/{secret}", None),
        ("POST", f"secret/data/{secret}", {"data": {}}),
        ("PATCH", f"secret/data/{secret}", {"data": {}}),
        ("DELETE", f"secret/data/{secret}", None),
        ("GET", f"secret/metadata/{secret}", None),
        ("POST", f"secret/metadata/{secret}", {"max_versions": 1}),
        ("DELETE", f"secret/metadata/{secret}", None),
        ("POST", f"secret/destroy/{secret}", {"versions": [1]}),
        ("POST", f"secret/undelete/{secret}", {"versions": [1]}),
        ("POST", f"secret/delete/{secret}", {"versions": [1]}),
        ("LIST", "secret/metadata/agents/bot", None),
        ("LIST", "secret/metadata/agents", None),
        ("LIST", "secret/metadata", None),
        ("GET", "secret/config", None),
        ("POST", "secret/config", {"max_versions": 1}),
        ("GET", f"kv/{secret}", None),
        ("DELETE", f"kv/{secret}", None),
        ("LIST", "kv", None),
        ("GET", "secret/data/agents/Other/db", None),
        ("GET", "secret/data/agents/ｏｔｈｅｒ/db", None),
        ("GET", f"secret/data/agents/{other.client.id}/db", None),
        ("GET", "secret/data/agents/other", None),
        ("GET", "secret/data/other/db", None),
        ("GET", "secret/data/x/agents/other/db", None),
    ):
        answer = await other.ask(method, path, body)
        assert (answer.status, CANARY.encode() in answer.body) == (403, False), (method, path, answer.body)
    assert await bot.read(secret) == {"password": CANARY}
    assert (await bot.ask("GET", "kv/agents/bot/db")).json["data"] == {"password": CANARY}
    assert await other.status("POST", "secret/data/agents/other/db", {"data": {}}) == 200


async def test_a_malformed_too_large_or_too_deep_body_is_refused(world: World, bot: VaultAgent) -> None:
    def sized(size: int) -> bytes:
        return b'{"data":{"a":"%s"}}' % (b"x" * (size - 17))

    def nested(levels: int) -> bytes:
        return b'{"data":' + b'{"a":' * (levels - 1) + b"1" + b"}" * levels

    too_large = await bot.ask("POST", PATH, sized(SMALL_BODY + 1))
    assert (too_large.status, list(too_large.json)) == (413, ["errors"])
    assert await bot.status("POST", PATH, sized(SMALL_BODY)) == 200
    assert await bot.status("POST", PATH, nested(MAX_DEPTH)) == 200
    deep = await bot.read("agents/bot/db")
    wrong: tuple[bytes, ...] = (
        nested(MAX_DEPTH + 1),
        b'{"data":' + b"[" * 5000,
        b"[]",
        b'"x"',
        b"null",
        b"{",
        b"\xff",
        b'{"data":{}, "data":{}}',
        b'{"data": []}',
        b'{"data": null}',
        b"{}",
        b'{"data":{"a":NaN}}',
        b'{"data":{"a":1e999}}',
        b'{"data":{},"options":1}',
        b'{"data":{"a":1,"a":2}}',
        b'{"data":{},"options":{"cas":"1"}}',
        b'{"data":{},"options":{"cas":true}}',
    )
    for body in wrong:
        await expect(world, bot, 400, "POST", PATH, body)
    await expect(world, bot, 400, "GET", f"{PATH}?version=1&version=2")
    assert await bot.read("agents/bot/db") == deep


REFUSED = (
    ("LIST", "secret/data/agents/bot/", 405),
    ("PATCH", "secret/config", 405),
    ("DELETE", "secret/config", 405),
    ("GET", "secret/delete/agents/bot/db", 405),
    ("GET", "secret/undelete/agents/bot/db", 405),
    ("GET", "transit/encrypt/k", 405),
    ("DELETE", "transit/encrypt/k", 405),
    ("PATCH", "transit/keys/k", 405),
    ("GET", "auth/token/renew-self", 405),
    ("DELETE", "auth/token/lookup-self", 405),
    ("DELETE", "sys/health", 405),
    ("POST", "sys/seal-status", 405),
    ("POST", "sys/mounts", 405),
    ("GET", "secret/data", 405),
    ("GET", "secret/data/", 405),
    ("GET", "auth/jwt/login", 405),
    ("GET", "secret", 403),
    ("GET", "secret/subkeys/agents/bot/db", 404),
    ("GET", "cubbyhole/x", 404),
    ("GET", "Secret/data/agents/bot/db", 403),
    ("GET", "transit/unknown/k", 405),
    ("POST", "transit/unknown/k", 404),
    ("GET", "sys/seal", 405),
    ("POST", "sys/seal", 403),
    ("GET", "sys/unseal", 405),
    ("POST", "sys/unseal", 400),
    ("GET", "sys/policies/acl/x", 403),
    ("GET", "transit/keys/k/", 404),
    ("POST", "transit/encrypt/k/", 404),
    ("POST", "transit/encrypt/k/more", 400),
    ("POST", "transit/keys/k/rotate/", 404),
    ("POST", "transit/keys/k/rotate/more", 405),
    ("POST", "transit/random/platform/8/x", 400),
    ("POST", "transit/hash/sha2-256/x", 400),
    ("POST", "transit/sign/k/sha2-256/x", 400),
    ("POST", "auth/token/create", 403),
    ("POST", "auth/token/lookup", 403),
    ("POST", "auth/token/revoke", 403),
    ("POST", "sys/mounts/new", 400),
    ("POST", "sys/wrapping/unwrap", 400),
    ("DELETE", "sys/wrapping/unwrap", 405),
    ("GET", "sys/wrapping/wrap", 405),
    ("POST", "sys/wrapping/other", 404),
    ("GET", "sys/leases", 404),
    ("GET", "identity/entity", 404),
    ("GET", "sys/internal/ui/mounts/none", 403),
    ("POST", "auth/jwt/login/", 403),
    ("GET", "auth", 403),
    ("GET", "sys", 404),
)


async def test_a_wrong_method_or_path_is_refused(world: World, bot: VaultAgent, clock: Clock) -> None:
    for method, path, status in REFUSED:
        await expect(world, bot, status, method, path, {} if method in ("POST", "PATCH") else None)
        clock.advance(6)


async def test_unsupported_vault_headers_and_invalid_tokens_are_refused(world: World, bot: VaultAgent) -> None:
    for headers, status in (
        ([("x-vault-wrap-ttl", "0")], 400),
        ([("x-vault-wrap-ttl", "86401")], 400),
        ([("x-vault-wrap-ttl", "x")], 400),
        ([("x-vault-namespace", "team")], 400),
        ([("x-vault-token", bot.token)], 400),
        ([("x-vault-wrap-ttl", "1"), ("x-vault-wrap-ttl", "")], 400),
    ):
        await expect(world, bot, status, "POST", PATH, {"data": {}}, headers=headers)
    for verb in ("unwrap", "lookup"):
        answer = await bot.ask("POST", f"sys/wrapping/{verb}", {}, token="")
        assert (answer.status, "missing wrapping token" in answer.json["errors"][0]) == (400, True), answer.body
    assert await bot.status("GET", PATH) == 404
    for root in ("/", "root", "root/"):
        assert await bot.status("POST", PATH, {"data": {}}, headers=[("x-vault-namespace", root)]) == 200
    for token in ("hvs.", "hvs.x", f"{bot.token}x", bot.token[:-1], "s.x", "root", "hvs.\xe9", bot.token.upper()):
        await expect(world, bot, 403, "GET", PATH, token=token)
    await expect(world, bot, 403, "GET", PATH, token="")
    await expect(world, bot, 403, "GET", PATH, token="", headers=[("authorization", "Basic Ym90OmJvdA==")])


async def change(world: World, statement: Sql, **values: Any) -> None:
    """Change stored rows as someone does who reaches the database, and not the root key."""
    assert await world.writer.submit(lambda tx: tx.run(statement, **values)) == 1


async def test_a_stored_value_opens_only_unchanged_and_at_its_own_place(world: World, bot: VaultAgent) -> None:
    mine, other = "agents/bot/db", "agents/bot/other"
    for path in (mine, other):
        assert await bot.status("POST", f"secret/data/{path}", {"data": {"password": CANARY + path}}) == 200
    sealed = bytes(world.db.read().one(SEALED, target=mine.encode())[0])  # type: ignore[index]
    flipped = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for statement, values in (
        (SET_SEALED, {"sealed": flipped}),
        (SET_SEALED, {"sealed": sealed[1:]}),
        (SET_SEALED, {"sealed": sealed[:5]}),
        (SET_SEALED, {"sealed": b""}),
        (SET_WRAPPED, {"sealed": b""}),
        (COPY, {"source": other.encode()}),
    ):
        await change(world, statement, target=mine.encode(), **values)
        await expect(world, bot, 400, "GET", f"secret/data/{mine}")
        await expect(world, bot, 400, "PATCH", f"secret/data/{mine}", {"data": {}})
    assert await bot.read(other) == {"password": CANARY + other}
    assert await bot.status("POST", f"secret/data/{mine}", {"data": {"a": 1}}) == 200
    for name in ("one", "two"):
        assert await bot.status("POST", f"transit/keys/{name}", {}) == 200
    changes: tuple[tuple[Sql, dict[str, Any]], ...] = (
        (COPY_KEY, {"source": "two"}),
        (SET_MATERIAL, {"sealed": b"x"}),
    )
    for statement, values in changes:
        await change(world, statement, name="one", **values)
        await expect(world, bot, 400, "POST", "transit/encrypt/one", {"plaintext": ""})
    assert await bot.status("POST", "transit/encrypt/two", {"plaintext": ""}) == 200


async def test_transit_requests_are_limited_in_number_and_size(
    bot: VaultAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await bot.status("POST", "transit/keys/k", {}) == 200
    monkeypatch.setattr(transit, "MAX_KEY_VERSIONS", 3)
    assert [await bot.status("POST", "transit/keys/k/rotate") for _ in range(3)] == [200, 200, 400]
    assert (await bot.ask("GET", "transit/keys/k")).json["data"]["latest_version"] == 3
    monkeypatch.setattr(transit, "MAX_KEYS", 2)
    assert [await bot.status("POST", f"transit/keys/{name}", {}) for name in ("n", "m", "n")] == [200, 400, 200]
    item, content = {"plaintext": ""}, {"batch_input": [{"plaintext": ""}] * MAX_BATCH}
    assert await bot.status("POST", "transit/encrypt/k", content) == 200
    assert await bot.status("POST", "transit/encrypt/k", {"batch_input": [item] * (MAX_BATCH + 1)}) == 400
    assert await bot.status("POST", "transit/encrypt/k", {"batch_input": []}) == 400
    monkeypatch.setattr(transit, "MAX_KEYS", 3)
    assert await bot.status("POST", "transit/keys/l", {"type": "ecdsa-p384"}) == 200
    for count, status in ((MAX_CURVE_BATCH, 200), (MAX_CURVE_BATCH + 1, 400)):
        assert await bot.status("POST", "transit/sign/l", {"batch_input": [{"input": ""}] * count}) == status
    for path, body, status in (
        ("random", {"bytes": MAX_RANDOM}, 200),
        ("random", {"bytes": MAX_RANDOM + 1}, 400),
        ("random", {"bytes": 0}, 400),
        (f"random/{MAX_RANDOM}", {}, 200),
        (f"random/{MAX_RANDOM + 1}", {}, 400),
        ("random/x", {}, 400),
        ("random/platform/8", {}, 200),
        ("random/all", {}, 200),
        ("random/tpm/8", {}, 400),
        ("datakey/wrapped/k", {"bits": 128}, 200),
        ("datakey/wrapped/k", {"bits": 129}, 400),
        ("encrypt/k", {"plaintext": "", "key_version": 3}, 200),
        ("encrypt/k", {"plaintext": "", "key_version": 4}, 400),
        ("encrypt/k", {"plaintext": "", "key_version": -1}, 400),
        (f"keys/{'k' * 128}/rotate", {}, 400),
        (f"keys/{'k' * 129}", {}, 400),
        ("keys/a b", {}, 400),
        ("keys/n", {"type": "rsa-2048"}, 400),
        ("keys/k/config", {"min_decryption_version": 4}, 400),
        ("keys/k/config", {"min_decryption_version": 3}, 200),
        ("keys/k/config", {"min_encryption_version": 2}, 400),
        ("keys/k/config", {"min_encryption_version": 3}, 200),
    ):
        answer = await bot.ask("POST", f"transit/{path}", body)
        assert answer.status == status, (path, body, answer.body)


def read_files(folder: str) -> bytes:
    """The content of all files of a folder: with SQLite, the database is one of them."""
    return b"".join(one.read_bytes() for one in Path(folder).rglob("*") if one.is_file())


async def test_a_secret_value_appears_in_no_error_entry_log_or_file(
    world: World, bot: VaultAgent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    plain = base64.b64encode(CANARY.encode()).decode()
    assert await bot.status("POST", PATH, {"data": {"password": CANARY, CANARY: 1}}) == 200
    assert await bot.status("POST", "kv/agents/bot/db", {CANARY: CANARY}) == 204
    assert await bot.read("agents/bot/db") == {"password": CANARY, CANARY: 1}
    assert await bot.status("PATCH", PATH, {"data": {"more": CANARY}}) == 200
    assert await bot.status("POST", "transit/keys/k", {}) == 200
    sealed = (await bot.ask("POST", "transit/encrypt/k", {"plaintext": plain})).json["data"]["ciphertext"]
    opened = await bot.ask("POST", "transit/decrypt/k", {"ciphertext": sealed})
    assert opened.json["data"] == {"plaintext": plain}
    wrong: list[tuple[str, str, Any]] = [
        ("POST", PATH, f'{{"data": {{"a": "{CANARY}"'.encode()),
        ("POST", PATH, CANARY.encode()),
        ("POST", PATH, [CANARY]),
        ("POST", PATH, {"data": CANARY}),
        ("POST", PATH, {"data": {"a": CANARY}, "options": {"cas": CANARY}}),
        ("POST", PATH, {"data": {"a": CANARY}, "options": {"cas": 9}}),
        ("POST", PATH, {"data": {"a": CANARY + "\0"}}),
        ("POST", PATH, {"data": {CANARY: [CANARY] * 5000}}),
        ("PATCH", PATH, {"data": [CANARY]}),
        ("POST", f"{PATH}/..", {"data": {"a": CANARY}}),
        ("POST", "secret/data/agents/other/x", {"data": {"a": CANARY}}),
        ("POST", "secret/destroy/agents/bot/db", {"versions": [CANARY]}),
        ("POST", "secret/metadata/agents/bot/db", {"custom_metadata": {"a": [CANARY]}, "delete_version_after": CANARY}),
        ("POST", "transit/encrypt/k", {"plaintext": CANARY}),
        ("POST", "transit/encrypt/none", {"plaintext": plain}),
        ("POST", "transit/encrypt/k", {"batch_input": [CANARY]}),
        ("POST", "transit/sign/k", {"input": plain}),
        ("POST", "transit/encrypt/k", {"plaintext": plain, "context": CANARY}),
        ("POST", "auth/jwt/login", {"jwt": CANARY}),
        ("POST", "auth/jwt/login", {"jwt": CANARY, "role": CANARY}),
        ("POST", "transit/keys/l", {"type": CANARY}),
        ("POST", "transit/hmac/k", {"input": plain, "algorithm": CANARY}),
        ("POST", "transit/hash", {"input": plain, "algorithm": CANARY}),
        ("POST", "sys/unseal", {"key": [CANARY]}),
        ("POST", "auth/approle/login", {"role_id": "ag_x", "secret_id": CANARY}),
        ("POST", "auth/jwt/login", {"jwt": [CANARY]}),
        ("POST", "auth/token/renew-self", {"increment": CANARY}),
    ]
    shown = b""
    for method, path, body in wrong:
        answer = await bot.ask(method, path, body)
        assert answer.status in (400, 403, 413), (method, path, answer.body)
        shown += answer.body
    shown += (await bot.ask("GET", PATH, token=f"hvs.{CANARY}")).body
    entries = b"".join(body for _, body in ledger.search_entries(world.db.read(), {}, limit=500))
    logged = "".join(record.getMessage() + str(record.exc_text) for record in caplog.records)
    kept = read_files(world.config.data_dir)
    for text in (CANARY, plain.rstrip("="), json.dumps(CANARY)[1:-1].encode().hex(), bot.token):
        assert [text.encode() in where for where in (shown, entries, logged.encode(), kept)] == [False] * 4, text


async def test_list_version_and_path_parameters_are_accepted_in_the_forms_of_vault(
    world: World, bot: VaultAgent
) -> None:
    await permit_all(world)
    assert await bot.status("POST", PATH, {"data": {"a": "b"}}) == 200
    folder = "secret/metadata/agents/bot"
    for text in ("1", "t", "T", "true", "TRUE", "True"):
        assert (await bot.ask("GET", f"{folder}?list={text}")).json["data"] == {"keys": ["db"]}, text
    for text in ("0", "f", "F", "false", "FALSE", "False", ""):
        assert await bot.status("GET", f"{folder}?list={text}") == 404, text
    for text in ("yes", "tRUE", "2", "x"):
        assert await bot.status("GET", f"{folder}?list={text}") == 400, text
    assert await bot.status("GET", f"{PATH}?version=") == 200
    for body in ({"paths": f"{PATH}, sys/mounts"}, {"paths": [PATH, "sys/mounts"]}, {"path": PATH}, {"path": [PATH]}):
        shown = (await bot.ask("POST", "sys/capabilities-self", body)).json["data"]
        assert shown[PATH] == ["create", "delete", "patch", "read", "update"], body
        assert ("sys/mounts" in shown) == ("paths" in body)
    for wrong in (
        b"{}",
        b'{"paths":[]}',
        b'{"paths":" , "}',
        b'{"paths":1}',
        json.dumps({"paths": ["x"] * 21}).encode(),
    ):
        assert await bot.status("POST", "sys/capabilities-self", wrong) == 400, wrong
    own = (await bot.ask("GET", "auth/token/lookup-self")).json["data"]
    assert (await bot.ask("POST", "auth/token/lookup-self", {})).json["data"] == own
    assert (await bot.ask("POST", "auth/token/lookup", {})).json["data"]["accessor"] == own["accessor"]
    made = await bot.ask("POST", "auth/token/create", {"policies": "default, one"})
    assert made.json["auth"]["policies"] == ["default", "one"]
    for path, place in (
        ("identity/entity", "registry of agents"),
        ("identity/oidc/token/x", "registry of agents"),
        ("auth/userpass/login/ann", "no passwords"),
        ("sys/audit/file", "ledger"),
        ("sys/rotate", "rotate-keys"),
        ("sys/namespaces/team", "not supported"),
        ("sys/unknown", "conformance"),
    ):
        answer = await bot.ask("POST", path, {"name": "x"})
        assert (answer.status, answer.json["errors"][0]) == (404, "unsupported path"), path
        assert place in answer.json["errors"][1], path
    for path, body, hint in (
        ("auth/token/create", {"type": "batch"}, "`ttl` and `num_uses`"),
        ("auth/token/create", {"type": "servce"}, "leave `type` out, or set it to service"),
        ("sys/auth/people", {"type": "userpass"}, "persons sign in at the console"),
    ):
        answer = await bot.ask("POST", path, body)
        assert answer.status == 400, path
        assert hint in answer.json["errors"][1], path


USES = 1_000_000_000
MEMBERS: tuple[tuple[str, str, dict[str, Any], str, dict[str, Any]], ...] = (
    ("PATCH", PATH, {}, "no data provided", {"data": {"b": 1}}),
    ("POST", PATH, {}, "no data provided", {"data": {"a": 1}}),
    ("POST", "cubbyhole/few", {}, "missing data fields", {"a": 1}),
    ("POST", "sys/policies/acl/few", {"policy": ""}, "'policy' parameter not supplied or empty", {"policy": "# none"}),
    ("POST", "auth/token/create", {"id": "mine"}, "`id` and `entity_alias` are not supported", {"id": ""}),
    ("POST", "auth/token/create", {"entity_alias": "a"}, "`id` and `entity_alias` are not supported", {}),
    ("POST", "auth/token/create", {"type": "periodic"}, "the token type 'periodic' is unknown", {"type": "service"}),
    *(
        ("POST", "auth/token/create", {"num_uses": uses}, "`num_uses` must be 0 to 1000000000 uses", {"num_uses": USES})
        for uses in (-1, USES + 1)
    ),
    *(
        ("POST", path, {member: uses}, f"`{member}` must be 0 to 1000000000 uses", {member: USES})
        for path, member in (
            ("auth/token/roles/few", "token_num_uses"),
            ("auth/workers/role/few", "token_num_uses"),
            ("auth/workers/role/few", "secret_id_num_uses"),
        )
        for uses in (-1, USES + 1)
    ),
    ("POST", "transit/datakey/plaintext/k", {"bits": 127}, "`bits` must be 128, 256 or 512", {"bits": 128}),
    ("POST", "transit/random/8", {"format": "octal"}, "`format` must be hex or base64", {"format": "hex"}),
    ("POST", "ca/config/urls", {"enable_templating": True}, "templates in URLs are not supported", {}),
    *(
        (
            "POST",
            "ca/config/crl",
            {"expiry": f"{wrong}s"},
            "`expiry` must be 600 to 31622400 s",
            {"expiry": f"{right}s"},
        )
        for wrong, right in ((SHORTEST_CRL_S - 1, SHORTEST_CRL_S), (LONGEST_CRL_S + 1, LONGEST_CRL_S))
    ),
    *(
        (
            "POST",
            "ca/root/generate/exported",
            {"common_name": "R", member: "text"},
            f"`{member}` must be ",
            {**ROOT, member: "pem"},
        )
        for member in ("format", "private_key_format")
    ),
)
"""Requests with a member that is refused, the words of the refusal, and a body that is accepted."""


async def test_a_member_outside_of_its_limits_is_refused_with_its_rule_and_changes_nothing(
    world: World, bot: VaultAgent
) -> None:
    await permit_all(world)
    for path, body in (
        ("sys/mounts/ca", {"type": "pki"}),
        ("sys/auth/workers", {"type": "approle"}),
        ("transit/keys/k", {}),
        (PATH, {"data": {"a": 1}}),
    ):
        assert await bot.status("POST", path, body) in (200, 204)
    for method, path, wrong, words, right in MEMBERS:
        before, tokens = await bot.ask("GET", path), world.db.read().one(TOKENS)
        size = ledger.get_head(world.db.read())[0].size
        answer = await bot.ask(method, path, wrong)
        assert (answer.status, words in answer.json["errors"][0]) == (400, True), (path, wrong, answer.body)
        assert (ledger.get_head(world.db.read())[0].size, newest_entry(world).outcome) == (size + 1, "refused"), path
        after = await bot.ask("GET", path)
        assert (after.status, after.json.get("data")) == (before.status, before.json.get("data")), path
        assert world.db.read().one(TOKENS) == tokens
        accepted = await bot.ask(method, path, right)
        assert accepted.status in (200, 204), (path, right, accepted.body)
