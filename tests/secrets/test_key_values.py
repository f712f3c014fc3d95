"""Key-value stores: check-and-set, deletion, patches, metadata, and the limits of each."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from harness.call_counts import count_calls
from harness.clock import Clock
from harness.registry_fixtures import newest_entry
from ostiary.protocol.errors import Invalid
from ostiaryd.app import build_app
from ostiaryd.ground.database.statement import Sql
from ostiaryd.ground.http.router import SegmentRouter
from ostiaryd.ground.world import World
from ostiaryd.secrets.flows.version_tokens import MOST_TOKENS
from ostiaryd.secrets.model import aws
from ostiaryd.secrets.model.keyvalue import (
    MAX_ATTRIBUTES,
    MAX_CUSTOM,
    MAX_STAGES,
    MAX_VALUE,
    MAX_VERSIONS,
    check_custom,
)
from tests.secrets.vault_fixtures import HOME, VaultAgent, permit_all

PATH = "agents/bot/db"
AT_ONCE = 16
MOST_CALLS_OF_A_READ, MOST_CALLS_OF_AN_ENCRYPTION, MOST_CALLS_OF_A_COMMIT = 365, 385, 1200


async def answer(router: SegmentRouter, method: str, path: str, token: str, *, body: bytes = b"", **more: Any) -> int:
    """Send a request to its endpoint without ASGI, as a connection does, and return the status of the response."""
    target = router.find_target(method, f"/v1/{path}".encode())
    assert target is not None
    reply, _ = await target.endpoint.answer(
        method,
        target.path,
        params=target.params,
        query=target.query,
        headers=[(b"x-vault-token", token.encode()), (b"content-type", b"application/json")],
        body=body,
        address=HOME,
        **more,
    )
    return reply.status


async def write(bot: VaultAgent, value: Any, *, path: str = PATH, **options: Any) -> int:
    return await bot.status("POST", f"secret/data/{path}", {"data": value, "options": options})


def test_a_secret_can_hold_all_attributes_of_the_aws_api_and_no_more() -> None:
    tags = {f"{aws.TAG}{number:é>{aws.MAX_TAG_KEY}}": "v" * aws.MAX_TAG_VALUE for number in range(aws.MAX_TAGS)}
    tokens = {f"{aws.VERSION}{number}": "t" * 64 for number in range(MOST_TOKENS + MAX_STAGES)}
    given = {**tags, **tokens, aws.DESCRIPTION: "d" * aws.MAX_DESCRIPTION, aws.DELETION: "1"}
    own = {f"k{number}": "v" for number in range(MAX_CUSTOM)}
    assert check_custom({**given, **own}) == {**given, **own}
    most = {f"{aws.TAG}{number}": "v" for number in range(MAX_ATTRIBUTES)}
    assert check_custom(most) == most
    for custom in ({**most, f"{aws.TAG}x": "v"}, {**own, "x": "v"}):
        with pytest.raises(Invalid):
            check_custom(custom)


async def test_a_check_and_set_write_succeeds_only_at_the_expected_version(world: World, bot: VaultAgent) -> None:
    assert await write(bot, {"a": 1}, cas=1) == 400
    assert await write(bot, {"a": 1}, cas=0) == 200
    refused = await bot.ask("POST", f"secret/data/{PATH}", {"data": {"a": 9}, "options": {"cas": 0}})
    assert refused.json == {"errors": ["check-and-set parameter did not match the current version"]}
    entry = newest_entry(world)
    assert (entry.action, entry.outcome, entry.reasons[0].code) == ("vault.write", "refused", "cas_mismatch")
    assert [await write(bot, {"a": 2}, cas=cas) for cas in (2, 0, -1, 1)] == [400, 400, 400, 200]
    assert await bot.read(PATH) == {"a": 2}
    for place, body in (("metadata/" + PATH, {"cas_required": True}), ("config", {"cas_required": True})):
        if place == "config":
            assert await bot.status("POST", f"secret/metadata/{PATH}", {"cas_required": False}) == 204
            await permit_all(world)
        assert await bot.status("POST", f"secret/{place}", body) == 204
        current = (await bot.ask("GET", f"secret/metadata/{PATH}")).json["data"]["current_version"]
        assert [await write(bot, {"a": 3}), await write(bot, {"a": 3}, cas=current)] == [400, 200]
    assert (await bot.ask("GET", "secret/config")).json["data"]["cas_required"] is True


async def test_a_repeated_read_of_a_secret_queries_no_secret_table(
    world: World, bot: VaultAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of the secret by another request is seen by the next read."""
    await write(bot, {"a": 1})
    for _ in range(2):  # the first read records its reader
        assert await bot.read(PATH) == {"a": 1}
    connection, ran = world.writer._connection, list[str]()

    def execute(statement: Sql, params: dict[str, Any], *, run: Any = connection.execute) -> Any:
        ran.extend(re.findall(r"(?:from|into) (\w+)", statement.sqlite)[:1])
        return run(statement, params)

    monkeypatch.setattr(connection, "execute", execute)
    assert await bot.read(PATH) == {"a": 1}
    shared = {"entry", "setting", "log_head", "log_history", "loss", "subtree"}
    assert [table for table in ran if table not in shared] == []
    assert await write(bot, {"a": 2}) == 200
    assert await bot.read(PATH) == {"a": 2}
    assert await bot.status("DELETE", f"secret/metadata/{PATH}") == 204
    assert await bot.status("GET", f"secret/data/{PATH}") == 404


async def test_a_connection_counts_as_proven_after_a_successful_read_of_a_secret(world: World, bot: VaultAgent) -> None:
    """A connection that counts as proven takes no place of those for unauthenticated callers."""
    await write(bot, {"a": 1})
    proven, router = list[tuple[bool, ...]](), build_app(world).router

    def note_proven(*kind: bool) -> None:
        proven.append(kind)

    assert await answer(router, "GET", "sys/health", bot.token, note_proven=note_proven) == 200
    assert await answer(router, "GET", f"secret/data/{PATH}", "hvs.unknown", note_proven=note_proven) == 403
    assert await answer(router, "GET", f"secret/data/{PATH}/other", bot.token, note_proven=note_proven) == 404
    assert proven == []
    assert await answer(router, "GET", f"secret/data/{PATH}", bot.token, note_proven=note_proven) == 200
    assert proven == [(False, False)]


@pytest.mark.parametrize(
    ("method", "path", "body", "most"),
    [
        ("GET", f"secret/data/{PATH}", b"", MOST_CALLS_OF_A_READ),
        ("POST", "transit/encrypt/counted", b'{"plaintext": "cGxhaW4="}', MOST_CALLS_OF_AN_ENCRYPTION),
    ],
)
async def test_the_number_of_function_calls_per_request_is_limited(
    world: World, bot: VaultAgent, method: str, path: str, body: bytes, most: int
) -> None:
    """Calls of functions, built-in ones included, with several requests at once."""
    if world.writer._begin_now is None:
        pytest.skip("the jobs run in the thread of the writer")
    await permit_all(world)
    await write(bot, {"a": 1})
    assert await bot.status("POST", "transit/keys/counted", {}) == 200
    router = build_app(world).router
    for _ in range(2):
        assert await answer(router, method, path, bot.token, body=body) == 200
    with count_calls() as calls:
        answers = await asyncio.gather(*(answer(router, method, path, bot.token, body=body) for _ in range(AT_ONCE)))
    assert answers == [200] * AT_ONCE
    commits = calls["Ed25519PrivateKey.sign"]
    assert 1 <= commits <= AT_ONCE, "a commit signs the head of the ledger once; a slow machine makes more of them"
    assert calls.total() <= most * AT_ONCE + MOST_CALLS_OF_A_COMMIT * commits


async def test_a_deleted_version_can_be_restored_and_a_destroyed_version_cannot(bot: VaultAgent) -> None:
    for number in (1, 2, 3):
        await write(bot, {"a": number})
    assert await bot.status("DELETE", f"secret/data/{PATH}") == 204
    deleted = await bot.ask("GET", f"secret/data/{PATH}")
    assert (deleted.status, deleted.json["data"]["data"], deleted.json["data"]["metadata"]["version"]) == (404, None, 3)
    assert deleted.json["data"]["metadata"]["deletion_time"]
    assert (await bot.ask("GET", f"secret/data/{PATH}?version=2")).json["data"]["data"] == {"a": 2}
    assert await bot.status("PUT", f"secret/undelete/{PATH}", {"versions": [3, 9]}) == 204
    assert await bot.read(PATH) == {"a": 3}
    assert await bot.status("POST", f"secret/delete/{PATH}", {"versions": ["1"]}) == 204
    assert await bot.status("POST", f"secret/destroy/{PATH}", {"versions": [1, 2]}) == 204
    assert await bot.status("POST", f"secret/undelete/{PATH}", {"versions": [1, 2]}) == 204
    for number in (1, 2):
        gone = await bot.ask("GET", f"secret/data/{PATH}?version={number}")
        assert (gone.status, gone.json["data"]["metadata"]["destroyed"]) == (404, True)
    shown = (await bot.ask("GET", f"secret/metadata/{PATH}")).json["data"]
    assert [one["destroyed"] for one in shown["versions"].values()] == [True, True, False]
    assert await bot.status("DELETE", f"secret/metadata/{PATH}") == 204
    assert await bot.status("GET", f"secret/metadata/{PATH}") == 404
    assert await write(bot, {"a": "new"}, cas=0) == 200


async def test_a_deletion_of_an_unknown_secret_succeeds_and_stores_nothing(bot: VaultAgent) -> None:
    for kind in ("delete", "undelete", "destroy"):
        assert await bot.status("POST", f"secret/{kind}/{PATH}", {"versions": [1]}) == 204
    assert await bot.status("DELETE", f"secret/data/{PATH}") == 204
    assert await bot.status("GET", f"secret/metadata/{PATH}") == 404
    assert await bot.status("PATCH", f"secret/data/{PATH}", {"data": {"a": 1}}) == 404
    assert await bot.status("PATCH", f"secret/metadata/{PATH}", {"max_versions": 1}) == 404
    assert await bot.status("LIST", f"secret/metadata/{bot.folder}") == 404


async def test_a_version_number_outside_the_accepted_range_is_refused(bot: VaultAgent) -> None:
    await write(bot, {"a": 1})
    wrong: tuple[Any, ...] = (2**53, 2**63, 10**30, -1, True, "", "1e3", "٣", 1.5)
    for kind in ("delete", "undelete", "destroy"):
        for number in wrong:
            assert await bot.status("POST", f"secret/{kind}/{PATH}", {"versions": [1, number]}) == 400
        assert await bot.status("POST", f"secret/{kind}/{PATH}", {"versions": [2**53 - 1]}) == 204
        assert await bot.status("POST", f"secret/{kind}/{PATH}", {"versions": [0] * 1000}) == 204
        for numbers in ([], [0] * 1001):
            assert await bot.status("POST", f"secret/{kind}/{PATH}", {"versions": numbers}) == 400
    for number in (2**53, 2**63, 10**30, -1):
        assert await bot.status("GET", f"secret/data/{PATH}?version={number}") == 400
    assert await bot.status("GET", f"secret/data/{PATH}?version={10**15 - 1}") == 404
    assert await bot.read(PATH) == {"a": 1}


async def test_a_patch_merges_members_and_cannot_exceed_the_size_limit(world: World, bot: VaultAgent) -> None:
    await write(bot, {"a": {"b": 1, "c": 2}, "d": 3})
    assert await bot.status("PATCH", f"secret/data/{PATH}", {"data": {"a": {"b": None, "e": [1]}, "d": "x"}}) == 200
    assert await bot.read(PATH) == {"a": {"c": 2, "e": [1]}, "d": "x"}
    assert await bot.status("PATCH", f"secret/data/{PATH}", {"data": {"d": 1}, "options": {"cas": 1}}) == 400
    plain = [("content-type", "application/json")]
    assert await bot.status("PATCH", f"secret/data/{PATH}", {"data": {"d": 1}}, headers=plain) == 400
    half = "x" * (MAX_VALUE // 2)
    await write(bot, {"a": half})
    rest = MAX_VALUE - len(json.dumps({"a": half, "b": ""}, separators=(",", ":")))
    too_large = await bot.ask("PATCH", f"secret/data/{PATH}", {"data": {"b": "y" * (rest + 1)}})
    assert (too_large.status, newest_entry(world).reasons[0].code) == (400, "too_large")
    assert await bot.read(PATH) == {"a": half}
    assert await bot.status("PATCH", f"secret/data/{PATH}", {"data": {"b": "y" * rest}}) == 200
    await bot.ask("DELETE", f"secret/data/{PATH}")
    assert await bot.status("PATCH", f"secret/data/{PATH}", {"data": {"b": 1}}) == 404


async def test_metadata_and_versions_have_limits(bot: VaultAgent) -> None:
    async def put(**body: Any) -> int:
        return await bot.status("POST", f"secret/metadata/{PATH}", body)

    assert [await put(max_versions=count) for count in (-1, MAX_VERSIONS + 1, MAX_VERSIONS, 2)] == [400, 400, 204, 204]
    for number in (1, 2, 3):
        await write(bot, {"a": number})
    shown = (await bot.ask("GET", f"secret/metadata/{PATH}")).json["data"]
    assert (list(shown["versions"]), shown["oldest_version"], shown["current_version"]) == (["2", "3"], 2, 3)
    many = {f"k{number}": "v" for number in range(MAX_CUSTOM + 1)}
    assert await put(custom_metadata=many) == 400
    del many["k0"]
    assert await put(custom_metadata=many) == 204
    for wrong in ({"": "v"}, {"k" * 129: "v"}, {"k": "v" * 513}, {"k": "a\nb"}, {"k": 1}):
        assert await put(custom_metadata=wrong) == 400
    assert await put(custom_metadata={"k" * 128: "v" * 512, "owner": "ann"}) == 204
    changed = {"custom_metadata": {"k" * 128: None, "team": "x"}}
    assert await bot.status("PATCH", f"secret/metadata/{PATH}", changed) == 204
    read = (await bot.ask("GET", f"secret/data/{PATH}")).json["data"]["metadata"]
    assert read["custom_metadata"] == {"owner": "ann", "team": "x"}
    for after in ("1x", "-1s", -1, 100 * 365 * 86_400 + 1, True):
        assert await put(delete_version_after=after) == 400
    assert await put(delete_version_after="1h30m") == 204
    assert (await bot.ask("GET", f"secret/metadata/{PATH}")).json["data"]["delete_version_after"] == "1h30m0s"


async def test_a_version_is_deleted_after_the_time_set_by_its_metadata_or_mount(
    world: World, bot: VaultAgent, clock: Clock
) -> None:
    await permit_all(world)
    assert await bot.status("POST", "secret/config", {"delete_version_after": "3s"}) == 204
    assert (await bot.ask("GET", "secret/config")).json["data"]["delete_version_after"] == "3s"
    await write(bot, {"a": 1})
    clock.advance(2.999999)
    assert await bot.read(PATH) == {"a": 1}
    clock.advance(0.000001)
    assert await bot.status("GET", f"secret/data/{PATH}") == 404
    assert await bot.status("POST", f"secret/undelete/{PATH}", {"versions": [1]}) == 204
    clock.advance(100)
    assert await bot.read(PATH) == {"a": 1}
    assert await bot.status("POST", f"secret/metadata/{PATH}", {"delete_version_after": "2s"}) == 204
    await write(bot, {"a": 2})
    clock.advance(2)
    assert await bot.status("GET", f"secret/data/{PATH}") == 404
    assert await bot.status("POST", "secret/config", {"max_versions": MAX_VERSIONS + 1}) == 400


async def test_version_1_keeps_one_value_and_lists_names_and_folders(bot: VaultAgent) -> None:
    for name in ("a", "a/b", "a/c/d", "a-b", "é", "z/1", "z/2"):
        assert await bot.status("PUT", f"kv/agents/bot/{name}", {"v": name}) == 204
    assert await bot.status("POST", "kv/agents/bot/a", {"v": "second"}) == 204
    assert (await bot.ask("GET", "kv/agents/bot/a")).json["data"] == {"v": "second"}
    listed = await bot.ask("GET", "kv/agents/bot?list=true")
    assert listed.json["data"]["keys"] == ["a", "a-b", "a/", "z/", "é"]
    assert (await bot.ask("LIST", "kv/agents/bot/a/")).json["data"]["keys"] == ["b", "c/"]
    assert await bot.status("DELETE", "kv/agents/bot/a") == 204
    assert await bot.status("DELETE", "kv/agents/bot/a") == 204
    assert await bot.status("GET", "kv/agents/bot/a") == 404
    assert (await bot.ask("GET", "kv/agents/bot/a/b")).json["data"] == {"v": "a/b"}
    for method, path, body, status in (
        ("POST", "kv/agents/bot/a", {}, 400),
        ("PATCH", "kv/agents/bot/a/b", {"v": 1}, 405),
        ("POST", "kv/agents/bot/a/", {"v": 1}, 405),
        ("GET", "kv/agents/bot/", None, 405),
        ("GET", "kv", None, 405),
    ):
        assert await bot.status(method, path, body) == status


async def test_a_value_comes_back_as_it_was_written(bot: VaultAgent) -> None:
    value = {
        "float": 0.1,
        "big": 10**40,
        "negative": -(2**63),
        "text": "é\U0001f511\ufffd\u2028",
        "": "",
        "null": None,
        "escape": "\\u0000 \\\\u0000",
        "list": [1.5e300, True, {"a": []}],
    }
    assert await write(bot, value) == 200
    assert await bot.read(PATH) == value
    for text in (rb'{"data": {"a": "\u0000"}}', rb'{"data": {"a": "\\\u0000"}}', rb'{"data": {"a": "\ud800"}}'):
        assert await bot.status("POST", f"secret/data/{PATH}", text) == 400
    assert await bot.read(PATH) == value


async def test_subkeys_show_member_names_without_values(world: World, bot: VaultAgent) -> None:
    value = {"a": {"b": {"c": "v4lu3"}, "e": {}}, "l": [{"x": "v4lu3"}], "n": None, "t": "v4lu3"}
    await write(bot, value)
    leaves = {"l": None, "n": None, "t": None}
    for depth, below in (
        ("", {"b": {"c": None}, "e": None}),
        ("?depth=0", {"b": {"c": None}, "e": None}),
        ("?depth=2", {"b": None, "e": None}),
        ("?depth=1&version=1", None),
    ):
        shown = await bot.ask("GET", f"secret/subkeys/{PATH}{depth}")
        assert shown.json["data"]["subkeys"] == {"a": below, **leaves}, depth
        assert "v4lu3" not in repr(shown.body)
        assert shown.json["data"]["metadata"]["version"] == 1
    entry = newest_entry(world)
    assert (entry.action, entry.object, entry.detail) == (
        "vault.read",
        f"secret/{PATH}",
        {"operation": "subkeys", "version": 1},
    )
    for query in ("depth=-1", "depth=x", "depth=1.0", "version=x", "depth=1234567890"):
        assert await bot.status("GET", f"secret/subkeys/{PATH}?{query}") == 400, query
    for status, method, path in (
        (404, "GET", f"{PATH}?version=2"),
        (404, "GET", "agents/bot/none"),
        (403, "GET", "agents/other/db"),
        (405, "POST", PATH),
        (405, "LIST", "agents/bot"),
        (405, "GET", "agents/bot/"),
    ):
        assert await bot.status(method, f"secret/subkeys/{path}", {} if method == "POST" else None) == status, path
    await bot.ask("DELETE", f"secret/data/{PATH}")
    gone = await bot.ask("GET", f"secret/subkeys/{PATH}")
    assert (gone.status, gone.json["data"]["subkeys"]) == (404, None)
    assert gone.json["data"]["metadata"]["deletion_time"]


async def test_a_duration_has_the_forms_of_vault(world: World, bot: VaultAgent) -> None:
    await write(bot, {})
    cases: list[tuple[object, str]] = [
        (90, "1m30s"),
        ("1h30m", "1h30m0s"),
        ("90", "1m30s"),
        ("30m1h", "1h30m0s"),
        ("+5s", "5s"),
        ("1.5h", "1h30m0s"),
        ("5000ms", "5s"),
        ("2d", "48h0m0s"),
        ("", "0s"),
        ("876000h", "876000h0m0s"),
    ]
    for written, shown in cases:  # each differs from what the case before has stored
        assert await bot.status("POST", f"secret/metadata/{PATH}", {"delete_version_after": written}) == 204, written
        read = await bot.ask("GET", f"secret/metadata/{PATH}")
        assert read.json["data"]["delete_version_after"] == shown, written


async def test_a_malformed_duration_is_refused(world: World, bot: VaultAgent) -> None:
    await write(bot, {})
    wrong: tuple[object, ...] = (-5, "-5", "-5s", "5.7", 5.7, "1w", "1y", "1d12h", "1m1", "5S", "0x10", " 60 ", "1h 5m")
    for value in (*wrong, True, [], {}, "9" * 13, "876001h", 10**12, "1" * 65, "500ms", "0.5s", "h", "٣s"):
        answer = await bot.ask("POST", f"secret/metadata/{PATH}", {"delete_version_after": value})
        assert (answer.status, "delete_version_after" in answer.json["errors"][0]) == (400, True), value
