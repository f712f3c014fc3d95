"""Back ends that lie, hang or drip, and configurations that lead elsewhere: a precise error, an entry, and no value."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ostiary import ambient
from ostiary.protocol.errors import Forbidden, Invalid, Refused
from ostiaryd.app import build_app
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from ostiaryd.secrets.backends import folders, remote
from ostiaryd.secrets.backends.aws_accounts import AwsAccounts
from ostiaryd.secrets.flows import backends
from ostiaryd.secrets.model.aws_account import AwsRoot
from ostiaryd.secrets.model.backend import (
    MAX_ANSWER,
    BackendConfig,
    BackendFailed,
    BackendKind,
    check_address,
    check_config,
    check_credentials,
    check_name,
)
from ostiaryd.secrets.model.keyvalue import MAX_VALUE
from tests.secrets.vault_fixtures import VaultAgent, enter_agent, permit_all, seal_all
from tests.support.incident_fixtures import entries_of

KEYS = {"access_key_id": "AKIAEXAMPLEEXAMPLE12", "secret_access_key": "x"}
KINDS: dict[str, dict[str, Any]] = {
    "vault": {"kind": BackendKind.VAULT_V2, "mount": "secret"},
    "aws": {"kind": BackendKind.AWS, "region": "eu-west-1"},
}


class LyingServer:
    """A server that gives the same bytes to each request, and counts requests; `hold` keeps an answer back."""

    def __init__(self) -> None:
        self.answer, self.asked, self.url = b"", 0, ""
        self.has_request, self.hold = asyncio.Event(), asyncio.Event()
        self.hold.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        self.has_request.set()
        await self.hold.wait()
        writer.write(self.answer)
        await writer.drain()
        writer.close()

    def says(self, status: int, body: Any, *headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = [f"HTTP/1.1 {status} x", f"content-length: {len(content)}", "connection: close", *headers, "", ""]
        self.answer = "\r\n".join(head).encode() + content


@asynccontextmanager
async def lying(serve: Callable[..., Any]) -> AsyncIterator[str]:
    tasks = set[asyncio.Task[None]]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError):
            await serve(reader, writer)
        writer.transport.abort()
        tasks.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks)


@pytest.fixture
async def liar() -> AsyncIterator[LyingServer]:
    made = LyingServer()
    async with lying(made.serve) as made.url:
        yield made
        made.hold.set()


async def enter(world: World, url: str, kind: str = "vault", *, name: str = "bot") -> tuple[World, VaultAgent]:
    """The world of a server with that back end under the name `far`, and an agent that may read everything."""
    world = dataclasses.replace(world, config=replace(world.config, secret_backends=url))
    await permit_all(world)
    config = BackendConfig(address=url, **KINDS[kind])
    credentials = KEYS if kind == "aws" else {"token": "root"}
    await act(world, "backend.put", lambda a: backends.put_backend(a, "far", config, credentials))
    return world, await (await enter_agent(world, build_app(world), name)).login()


def value(data: Any, version: Any = 1) -> dict[str, Any]:
    return {"data": {"data": data, "metadata": {"version": version}}}


def refused_entries(world: World) -> list[tuple[str | None, str]]:
    return [(one.object, one.outcome) for one in entries_of(world, "backend.fetch")]


async def test_a_malformed_vault_response_is_not_returned_as_a_value(world: World, liar: LyingServer) -> None:
    world, bot = await enter(world, liar.url)
    fitting = {"a": "x" * (MAX_VALUE - len('{"a":""}'))}
    lies: tuple[tuple[int, Any, int, str], ...] = (
        (200, value({"a": "b"}), 200, '"a":"b"'),
        (200, value(fitting), 200, "xxx"),
        (200, value({"a": fitting["a"] + "x"}), 502, "more than 65536 bytes"),
        (200, b" " * (MAX_ANSWER + 1), 502, "more than 262144 bytes"),
        (200, b"{", 502, "not JSON"),
        (200, b"[" * 5000 + b"]" * 5000, 502, "not JSON"),
        (200, b'{"data": {"data": {"a": "b"}, "data": {"a": "c"}}}', 502, "not JSON"),
        (200, [], 502, "not a JSON object"),
        (200, {"data": []}, 502, "no `data`"),
        (200, value("text"), 502, "not a JSON object"),
        (200, value({"a": "b"}, "1"), 502, "not a number"),
        (200, value({"a": "b"}, -1), 502, "not a number"),
        (204, b"", 502, "not a JSON object"),
        (301, b"", 502, "a redirect"),
        (307, b"", 502, "a redirect"),
        (403, {"errors": ["permission denied"]}, 502, "denied the request"),
        (404, {"errors": []}, 404, ""),
        (500, {"errors": ["secret words of the store"]}, 502, "answers 500"),
        (200, b"\xff", 502, "not JSON"),
    )
    for number, (status, body, expected, words) in enumerate(lies):
        liar.says(status, body, f"location: {liar.url}/v1/secret/data/other")
        answer = await bot.ask("GET", f"backend/far/data/path{number}")
        assert (answer.status, words in answer.body.decode()) == (expected, True), (status, answer.body[:300])
        assert b"words of the store" not in answer.body
    liar.answer = b"this is no HTTP\r\n\r\n"
    assert await bot.status("GET", "backend/far/data/x") == 502
    for names in (None, ["../x"], ["a/b"], ["/"], ["a", 1], ["a\\b"], ["%61"], ["x"] * 10_001):
        liar.says(200, {"data": {"keys": names}})
        assert await bot.status("LIST", "backend/far/metadata/folder") == 502, names
    assert liar.asked == len(lies) + 9, "no redirect is followed"
    refused = refused_entries(world)
    assert refused[:2] == [("backend/far/path2", "refused"), ("backend/far/path3", "refused")]


async def test_a_malformed_aws_response_is_not_returned_as_a_value(world: World, liar: LyingServer) -> None:
    world, bot = await enter(world, liar.url, "aws")
    current = {"VersionStages": ["AWSCURRENT", "mine"]}
    for number, (status, body, expected, words) in enumerate(
        (
            (200, {"Name": "p0", "SecretString": "{}", **current}, 200, '"data":{}'),
            (200, {"Name": "p0", "SecretString": "{}", **current}, 502, "another secret"),
            (200, {"SecretString": "{}", **current}, 502, "another secret"),
            (200, {"Name": "p3", "SecretString": 7, **current}, 502, "must have `SecretString`"),
            (200, {"Name": "p4", "SecretBinary": "no base64!", **current}, 502, "must have `SecretString`"),
            (200, {"Name": "p5", "SecretString": '{"a": NaN}', **current}, 502, "JSON"),
            (200, {"Name": "p6", "SecretString": "{}", "VersionStages": ["AWSPREVIOUS"]}, 502, "another version"),
            (200, {"Name": "p7", "SecretString": "{}", "VersionStages": 7}, 502, "another version"),
            (400, {"__type": "AccessDeniedException", "Message": "secret words"}, 502, "AccessDeniedException"),
            (400, {"__type": "a" * 65}, 502, "answers 400"),
            (400, {"__type": "x#ResourceNotFoundException"}, 404, ""),
            (500, {}, 502, "answers 500"),
        )
    ):
        liar.says(status, body)
        answer = await bot.ask("GET", f"backend/far/data/p{number}")
        assert (answer.status, words in answer.body.decode()) == (expected, True), (number, answer.body)
        assert b"secret words" not in answer.body
    assert await bot.status("GET", "backend/far/data/no%20name") == 400
    assert liar.asked == 12


async def test_a_request_to_a_slow_back_end_times_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WITHIN_S", 0.2)
    drips = 0

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal drips
        writer.write(b"HTTP/1.1 200 x\r\ncontent-length: 1000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            drips += 1
            await asyncio.sleep(0.01)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    for serve in (hang, drip):
        async with lying(serve) as url:
            moved, bot = await enter(world, url, name=serve.__name__)
            answer = await bot.ask("GET", "backend/far/data/x")
            assert (answer.status, b"longer than 0.2 s" in answer.body) == (502, True), answer.body
            assert refused_entries(moved)[-1] == ("backend/far/x", "refused")
    assert drips > 0


async def test_a_late_value_is_not_returned_to_a_stopped_agent_or_while_sealed(world: World, liar: LyingServer) -> None:
    world, _ = await enter(world, liar.url)
    app = build_app(world)
    liar.says(200, value({"password": "late"}))

    async def ask(name: str, stop: Callable[[], Awaitable[object]]) -> int:
        bot = await (await enter_agent(world, app, name)).login()
        liar.hold.clear()
        liar.has_request.clear()
        asked = asyncio.create_task(bot.ask("GET", f"backend/far/data/{name}"))
        await liar.has_request.wait()
        await stop()
        liar.hold.set()
        answer = await asked
        assert b"late" not in answer.body
        return answer.status

    def suspend(name: str) -> Awaitable[object]:
        return act(world, "agent.suspend", lambda a: registry.set_agent_state(a, name, Verb.SUSPEND))

    assert await ask("agent", lambda: suspend("agent")) == 403
    assert await ask("vault", lambda: seal_all(world)) == 503


async def test_a_back_end_is_used_only_while_the_configuration_names_its_address(
    world: World, liar: LyingServer
) -> None:
    world, bot = await enter(world, liar.url)
    liar.says(200, value({"a": "b"}))
    elsewhere = dataclasses.replace(world, config=replace(world.config, secret_backends=liar.url + "0"))
    bot.client.app = build_app(elsewhere)
    answer = await bot.ask("GET", "backend/far/data/x")
    assert (answer.status, b"does not permit the address" in answer.body, liar.asked) == (403, True, 0)


def test_an_address_that_is_not_permitted_is_shown_without_its_password() -> None:
    with pytest.raises(Forbidden) as refusal:
        check_address("https://me:c4n4ry@vault.example", permitted=["https://vault.example"])
    assert refusal.value.message == "the configuration does not permit the address vault.example"


async def test_the_data_folder_of_the_server_is_refused_as_a_back_end(world: World) -> None:
    folder = world.config.folder
    (folder / "root").write_text("the root key")
    (folder / "below").mkdir()
    for address in (folder, folder.parent, folder / "below"):
        changed = dataclasses.replace(world, config=replace(world.config, secret_backends=str(address)))
        await permit_all(changed)
        config = BackendConfig(kind=BackendKind.FILES, address=str(address))
        await act(changed, "backend.put", lambda a, config=config: backends.put_backend(a, "far", config, {}))  # type: ignore[misc]
        bot = await (await enter_agent(changed, build_app(changed), f"bot{len(str(address))}")).login()
        answer = await bot.ask("GET", "backend/far/data/root")
        assert (answer.status, b"data folder of this server" in answer.body) == (502, True), answer.body


@pytest.mark.parametrize("removed", [0, 1, 2])
async def test_a_mounted_secret_is_read_consistently_while_the_kubelet_replaces_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: int
) -> None:
    """`removed`: number of former files that are removed before the read lists the files."""
    secret, members = tmp_path / "mounted/shop", ("password", "user")

    def mount(version: int) -> None:
        (secret / f"..{version}").mkdir(parents=True)
        for name in members:
            (secret / f"..{version}" / name).write_text(f"{name} {version}")
        (secret / "..data_tmp").symlink_to(f"..{version}")
        (secret / "..data_tmp").rename(secret / "..data")

    list_files, version = folders._file_names, 1
    mount(version)

    def swap_and_list(folder: Path) -> list[str]:
        nonlocal version
        if version <= swaps:
            version += 1
            mount(version)
            for name in members[:removed]:
                (folder / name).unlink()
        return list_files(folder)

    monkeypatch.setattr(folders, "_file_names", swap_and_list)
    config = BackendConfig(kind=BackendKind.KUBERNETES, address=str(tmp_path / "mounted"))
    backend = folders.KubernetesBackend(config, tmp_path / "data")
    for swaps in (0, 2, 100):
        if swaps > folders.SWAPS:
            with pytest.raises(BackendFailed, match="replaced several times"):
                await backend.read("shop")
        else:
            assert (await backend.read("shop")).data == {name: f"{name} {version}" for name in members}


def test_a_back_end_configuration_with_an_unpermitted_place_or_wrong_members_is_refused() -> None:
    url = "https://vault.example.org:8200"
    vault: dict[str, Any] = {"kind": BackendKind.VAULT_V2, "mount": "secret"}
    check_config(BackendConfig(address=url, **vault, cache_s=300), permitted=[url])
    files = {"kind": BackendKind.FILES}
    wrong: tuple[tuple[dict[str, Any], type[Refused]], ...] = (
        ({"address": "https://vault.example.org", **vault}, Forbidden),
        ({"address": url, **vault, "mount": ""}, Invalid),
        ({"address": url, **vault, "mount": "a/../b"}, Refused),
        ({"address": url, **vault, "region": "eu-west-1"}, Invalid),
        ({"address": url, **vault, "cache_s": 301}, Invalid),
        ({"address": url, **vault, "cache_s": -1}, Invalid),
        ({"address": url + "/x", **vault}, Invalid),
        ({"address": "/folder", **vault}, Invalid),
        ({"address": url, **files}, Invalid),
        ({"address": "/folder", **files, "mount": "x"}, Invalid),
        ({"address": url, "kind": BackendKind.AWS}, Invalid),
        ({"address": "env:OSTIARY_", "kind": BackendKind.ENVIRONMENT}, Invalid),
        ({"address": "env:", "kind": BackendKind.ENVIRONMENT}, Invalid),
        ({"address": "env:O", "kind": BackendKind.ENVIRONMENT}, Invalid),
    )
    addresses = [one["address"] for one, kind in wrong if kind is not Forbidden]
    for config, kind in wrong:
        with pytest.raises(kind):
            check_config(BackendConfig(**config), permitted=addresses)
    for name in ("", "agents", "A", "a/b", "x" * 65, ".x"):
        with pytest.raises(Invalid):
            check_name(name)
    assert check_name("x" * 64)
    for credentials in ({}, {"token": ""}, {"token": "a b"}, {"token": "x" * 4097}, {"token": "x", "more": "y"}):
        with pytest.raises(Invalid) as refusal:
            check_credentials(BackendKind.VAULT_V2, credentials)
        assert "x" * 100 not in str(refusal.value)
    assert check_credentials(BackendKind.VAULT_V2, {"token": "x" * 4096})


async def test_the_deletion_of_an_iam_user_with_more_than_100_access_keys_fails() -> None:
    server = LyingServer()
    async with lying(server.serve) as url:
        root = AwsRoot(access_key=KEYS["access_key_id"], iam_endpoint=url, sts_endpoint=url)
        accounts = AwsAccounts(root, "x" * 40, ca_file="", now=ambient.now)
        for keys, asked in ((101, 1), (100, 105)):
            server.asked = 0
            server.says(200, b"<a>" + b"<AccessKeyId>A</AccessKeyId>" * keys + b"</a>")
            with nullcontext() if keys == 100 else pytest.raises(BackendFailed, match="more than 100"):
                await accounts.delete_user("user")
            assert server.asked == asked
