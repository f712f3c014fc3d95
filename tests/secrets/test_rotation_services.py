"""Rotation by a command of the configuration, which is confined, and by the registration of an OAuth client."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from harness.clock import Clock
from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S, eventually
from harness.server import COMMAND, PATIENT, Server, running
from ostiary.protocol.errors import Invalid, Refused
from ostiaryd.ground.config import load_config
from ostiaryd.ground.process import commands
from ostiaryd.ground.process.commands import MAX_OUTPUT, CommandFailed, landlock_version, run_command
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.secrets import wire_rotations
from ostiaryd.secrets.flows import keyvalue, rotations
from ostiaryd.secrets.flows.rotations import CLAIM_S
from ostiaryd.secrets.model.lease import MAX_ERROR
from ostiaryd.secrets.model.request import SECOND, NothingStored
from ostiaryd.secrets.model.rotation import (
    LONGEST_COMMAND_S,
    MAX_ARGUMENTS,
    RotationConfig,
    ServiceRefused,
    check_config,
    parse_commands,
    parse_output,
    parse_registration,
)
from ostiaryd.secrets.store import rotations as store
from ostiaryd.secrets.store.rotations import Rotation
from tests.secrets.account_fixtures import second_server
from tests.support.incident_fixtures import entries_of
from tests.support.node import serving_provider
from tests.support.webhook_receiver import Receiver, receiving

PATH = "secret/app/shop"
PYTHON = [sys.prefix, sys.base_prefix]
FORWARD = """import json, os, sys, urllib.request
call = json.load(sys.stdin) | {"pid": os.getpid(), "arguments": sys.argv[2:], "variables": sorted(os.environ)}
print(urllib.request.urlopen(sys.argv[1], json.dumps(call).encode()).read().decode())
"""
"""A command that asks a service for its answer."""
NEEDS_LANDLOCK = pytest.mark.skipif(landlock_version() < 1, reason="the kernel has no Landlock to confine a command")
UNCONFINED = "" if landlock_version() >= 1 else "unconfined = true\n"


@pytest.fixture
def service() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def settings(tmp_path: Path, service: Receiver) -> str:
    """The file of the setting `rotation_commands`."""
    script, file = tmp_path / "forward.py", tmp_path / "commands.toml"
    script.write_text(FORWARD)
    file.write_text(
        f"[command.forward]\nrun = {json.dumps([sys.executable, str(script), service.url, 'shop'])}\n"
        f"readable = {json.dumps([*PYTHON, str(script)])}\n{UNCONFINED}"
    )
    return str(file)


@pytest.fixture
def open_world(world: World, settings: str) -> World:
    """The world of a server that has the command, and may call services on this machine."""
    return dataclasses.replace(
        world, config=replace(world.config, private_hosts="127.0.0.1", rotation_commands=settings)
    )


def answer(status: str, **more: str) -> tuple[int, dict[str, str]]:
    return 200, {"x-body": json.dumps({"status": status, **more})}


async def schedule(world: World, value: dict[str, Any], *, grace: int = 0, **service: str) -> None:
    """Store a secret with a rotation each hour, which is due."""
    await act(world, "vault.write", lambda a: keyvalue.put_value(a, "secret", "app/shop", value))
    config = replace(RotationConfig(member="api_key", period=3600, grace=grace), **service)
    await act(world, "rotation.put", lambda a: rotations.put_rotation(a, PATH, check_config(PATH, config)))
    await act(world, "rotation.request", lambda a: rotations.request_rotation(a, PATH))


async def read(world: World, version: int = 0) -> dict[str, Any]:
    def flow(a: Act) -> Any:
        return json.loads(keyvalue.read_value(a, "secret", "app/shop", version)[2] or b"null")

    value: dict[str, Any] = await act(world, "vault.read", flow)
    return value


def row_of(world: World) -> Rotation:
    row = store.get_rotation(world.db.read(), PATH)
    assert row is not None
    return row


def heard(service: Receiver) -> list[dict[str, Any]]:
    return [json.loads(body) for _, body in service.heard]


async def test_a_rotation_command_sets_a_new_value_and_reports_whether_the_old_value_still_works(
    open_world: World, clock: Clock, service: Receiver
) -> None:
    world = open_world
    await schedule(world, {"api_key": "first", "user": "shop"}, grace=600, command="forward")
    service.answers = [answer("both"), answer("both"), answer("done"), answer("done")]
    await wire_rotations.rotate_due(world)
    [call] = heard(service)
    new = call["value"]
    assert (call["type"], call["path"], call["member"], len(new)) == ("secret.rotate", PATH, "api_key", 43)
    assert call["current"] == {"api_key": "first", "user": "shop"}
    assert call["arguments"] == ["shop"], "no argument has the value"
    assert set(call["variables"]) <= {"LANG", "LC_CTYPE", "PATH"}
    assert await read(world) == {"api_key": new, "user": "shop"}
    assert row_of(world).retire_at == clock() + 600 * SECOND
    clock.advance(600)
    await wire_rotations.rotate_due(world)
    assert row_of(world).error == "the command reports that the old value still works"
    clock.advance(2)
    await wire_rotations.rotate_due(world)
    assert [one["type"] for one in heard(service)[1:]] == ["secret.retire"] * 2
    assert "value" not in heard(service)[2]
    assert heard(service)[1]["id"] == heard(service)[2]["id"]
    assert row_of(world).retire_at is None
    await act(world, "rotation.request", lambda a: rotations.request_rotation(a, PATH))
    await wire_rotations.rotate_due(world)
    row = row_of(world)
    assert (row.retire_at, row.due_at) == (None, clock() + 3600 * SECOND), "after `done`, no old value works"
    assert (await read(world))["api_key"] == heard(service)[3]["value"] not in ("first", new)
    assert new not in str([entries_of(world, f"rotation.{kind}") for kind in ("begin", "end", "fail", "put")])


async def test_a_failed_command_leaves_the_old_value_and_its_reason_shows_no_secret(
    open_world: World, clock: Clock, service: Receiver
) -> None:
    world = open_world
    await schedule(world, {"api_key": "first"}, command="forward")
    service.answers = [(500, {}), answer("failed", reason="first is\x1b[2J wrong"), (200, {"x-body": "ok"})]
    errors = ("the command ends with exit status 1", "the command failed: *** is[2J wrong", "the command printed no re")
    for error in errors:
        await wire_rotations.rotate_due(world)
        assert row_of(world).error.startswith(error)
        assert await read(world) == {"api_key": "first"}
        clock.advance(10)
    service.answers = [answer("done")]
    await wire_rotations.rotate_due(world)
    assert len({(one["id"], one["value"]) for one in heard(service)}) == 1, "the same value is sent again"
    assert await read(world) == {"api_key": heard(service)[0]["value"]}
    assert len(entries_of(world, "rotation.fail")) == 3


async def test_a_secret_has_at_most_one_rotation_call_at_a_time(open_world: World, service: Receiver) -> None:
    world = open_world
    await schedule(world, {"api_key": "first"}, command="forward")
    service.silence.clear()
    service.answers = [answer("done")]
    call = asyncio.create_task(wire_rotations.send_due_call(world, PATH))
    await asyncio.to_thread(eventually, lambda: service.heard)
    for server in (world, *([] if world.db.is_sqlite else [second_server(world)])):
        await act(server, "rotation.request", lambda a: rotations.request_rotation(a, PATH))
        assert not await wire_rotations.send_due_call(server, PATH)
        await wire_rotations.rotate_due(server)
    service.silence.set()
    assert await call
    assert (len(service.heard), entries_of(world, "rotation.fail")) == (1, [])


async def test_a_rotation_call_of_a_killed_server_is_repeated_after_its_claim_expires(
    open_world: World, clock: Clock, service: Receiver
) -> None:
    world = open_world
    await schedule(world, {"api_key": "first"}, command="forward")
    until = clock() + CLAIM_S * SECOND
    claims = [await world.writer.submit(lambda tx: store.claim(tx, PATH, until=until, is_only=False)) for _ in range(2)]
    assert claims == [True, False]
    clock.advance(CLAIM_S - 1)
    await wire_rotations.rotate_due(world)
    assert service.heard == []
    service.answers = [answer("done")]
    clock.advance(1)
    await wire_rotations.rotate_due(world)
    assert len(service.heard) == 1


async def test_a_rotation_fails_if_its_command_is_no_longer_configured(open_world: World) -> None:
    await schedule(open_world, {"api_key": "first"}, command="gone")
    await wire_rotations.rotate_due(open_world)
    assert row_of(open_world).error == "the setting `rotation_commands` has no command 'gone'"
    assert await read(open_world) == {"api_key": "first"}


SHELL = "/bin/sh"


def run(tmp_path: Path, script: str, *, body: bytes = b"", **options: Any) -> Any:
    return run_command(
        [SHELL, "-c", script], body, **{"within_s": 30, "secret_folder": str(tmp_path / "data"), **options}
    )


@NEEDS_LANDLOCK
async def test_a_confined_command_reads_no_file_of_the_server_and_writes_none(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "root.key").write_text("the root key")
    target = tmp_path / "written"
    script = (
        f"cat {folder}/root.key; ls {tmp_path}; cat /proc/{os.getpid()}/environ; echo x > {target};"
        f" kill -0 {os.getpid()} && echo signal; echo quiet > /dev/null && echo end; pwd"
    )
    signal = b"" if landlock_version() >= 6 else b"signal\n"  # older kernels do not confine signals
    assert await run(tmp_path, script) == (0, signal + b"end\n/\n")
    assert not target.exists()
    result = await run(tmp_path, f"cat {folder}/root.key", is_confined=False)
    assert result.output == b"the root key"
    (tmp_path / "link").symlink_to(folder)
    for readable in ([str(tmp_path)], [str(folder)], ["/"], [str(folder / "root.key")], [str(tmp_path / "link")]):
        with pytest.raises(CommandFailed, match="contains, or lies in, the data folder"):
            await run(tmp_path, "true", readable=readable)
    assert await run(tmp_path, "ls /proc/self/fd; true") == (0, b"")


async def test_time_output_and_memory_of_a_command_are_bounded_and_its_processes_end_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"is_confined": landlock_version() >= 1}
    fitting = f"head -c {MAX_OUTPUT} /dev/zero"
    assert len((await run(tmp_path, fitting, **options)).output) == MAX_OUTPUT
    with pytest.raises(CommandFailed, match=f"more than {MAX_OUTPUT} bytes"):
        await run(tmp_path, f"{fitting}; echo", **options)
    with pytest.raises(CommandFailed, match="longer than 1 s"):
        await run(tmp_path, "cat; exec sleep 1000", within_s=1, **options)
    result = await run(tmp_path, "sleep 1000 > /dev/null & echo $!", **options)
    child = int(result.output)
    eventually(lambda: not is_running(child))
    assert (await run(tmp_path, "kill -9 $$", **options)).status == -9
    assert (await run(tmp_path, "exit 7", body=b"x" * (1 << 20), **options)).status == 7
    monkeypatch.setattr(f"{__name__}.SHELL", "/bin/no-such-command")
    assert (await run(tmp_path, "", **options)).status == commands.CANNOT_BEGIN
    big = [sys.executable, "-c", f"print(len(b'x' * {commands.MEMORY}))"]
    limited = await run_command(
        big, b"", within_s=30, secret_folder=str(tmp_path / "data"), readable=PYTHON, is_confined=options["is_confined"]
    )
    assert limited == (1, b""), "MemoryError"


def is_running(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


@pytest.mark.parametrize(
    ("status", "output", "error"),
    [
        (0, b"", "printed no result"),
        (0, b"done", "printed no result"),
        (0, b"[]", "printed no result"),
        (0, b"\xff", "printed no result"),
        (0, b'{"status": "ok"}', "printed no result"),
        (0, b'{"status": "done", "more": 1}', "printed no result"),
        (0, b'{"status": "done"} {"status": "done"}', "printed no result"),
        (1, b'{"status": "done"}', "exit status 1"),
        (-9, b'{"status": "both"}', "signal 9"),
        (3, b'{"status": "failed", "reason": "busy"}', "failed: busy"),
        (0, b'{"status": "failed"}', "failed: no reason"),
        (0, b'{"status": "failed", "reason": "a secretsecret"}', r"failed: a \*\*\*\*\*\*$"),
        (0, b'{"status": "failed", "reason": "inner, deeper"}', r"failed: \*\*\*, \*\*\*$"),
    ],
)
def test_only_an_answer_with_exit_status_0_is_a_success(status: int, output: bytes, error: str) -> None:
    with pytest.raises(ServiceRefused, match=error) as refusal:
        parse_output(status, output, hidden=("secret", "", 1, {"a": ["inner", {"b": "deeper"}]}))
    assert "secret" not in refusal.value.message
    long = json.dumps({"status": "failed", "reason": "x" * 1000}).encode()
    with pytest.raises(ServiceRefused) as refusal:
        parse_output(0, long, hidden=())
    assert len(refusal.value.message) == MAX_ERROR
    assert parse_output(0, b'{"status": "both"}\n', hidden=())
    assert not parse_output(0, b' {"status": "done"}', hidden=())


def test_a_rotation_command_must_be_an_absolute_path_within_limits(tmp_path: Path) -> None:
    fitting: dict[str, Any] = {"run": ["/bin/true"] + ["x"] * (MAX_ARGUMENTS - 1), "seconds": LONGEST_COMMAND_S}
    assert set(parse_commands({"command": {"a": fitting, "b": {**fitting, "seconds": 1}}})) == {"a", "b"}
    wrong: dict[str, Any]
    for wrong in (
        {"run": []},
        {"run": ["true"]},
        {"run": fitting["run"] + ["x"]},
        {"run": ["/bin/true", "a\0b"]},
        {"run": "/bin/true"},
        {"readable": ["etc"]},
        {"seconds": 0},
        {"seconds": LONGEST_COMMAND_S + 1},
        {"shell": True},
    ):
        with pytest.raises(Invalid, match="rotation command"):
            parse_commands({"command": {"a": {**fitting, **wrong}}})
    document: dict[str, Any]
    for document in ({"commands": {}}, {"command": []}, {"command": {str(n): fitting for n in range(101)}}):
        with pytest.raises(Invalid, match="rotation commands"):
            parse_commands(document)
    with pytest.raises(Invalid, match="the file of the setting `rotation_commands`"):
        load_config(data_dir=str(tmp_path), rotation_commands=str(tmp_path / "none.toml"))


def test_a_rotation_has_exactly_one_service_and_a_registration_has_no_grace_period() -> None:
    fitting: dict[str, Any] = {"member": "a", "period": 60, "grace": 0}
    check_config(PATH, RotationConfig(**fitting, command="x"))
    check_config(PATH, RotationConfig(**fitting, registration="https://as.example/reg/1"))
    for wrong in (
        {},
        {"url": "https://a.example", "command": "x"},
        {"command": "x", "registration": "https://a.example"},
        {"registration": "https://a.example", "grace": 1},
        {"registration": "https://a.example", "member": "registration_access_token"},
    ):
        with pytest.raises(Invalid):
            check_config(PATH, RotationConfig(**{**fitting, **wrong}))


@NEEDS_LANDLOCK
def test_a_server_that_is_killed_while_a_command_runs_loses_no_value(
    tmp_path: Path, settings: str, service: Receiver
) -> None:
    """The command ends with its server, and the next server gives it the same value."""
    folder = tmp_path / "data"
    file = tmp_path / "ostiary.toml"
    file.write_text(f"rotation_commands = {json.dumps(settings)}\n")
    options = ("--config", str(file))
    service.silence.clear()
    service.answers = [answer("done"), answer("done")]
    process = subprocess.Popen(
        [COMMAND, "serve", "--data-dir", folder, "--listen", "127.0.0.1:0", *options],
        stdout=subprocess.PIPE,
        text=True,
        env=PATIENT | os.environ,
    )
    with process:
        assert process.stdout is not None
        server = Server(process.stdout.readline().split()[1], folder)
        with ServerFixture(server, tmp_path) as live:
            live.api("POST", "/secrets/put", {"path": PATH, "data": {"api_key": "first"}})
            with pytest.raises(AssertionError, match="has no command"):
                live.api(
                    "POST", "/secrets/rotations", {"path": PATH, "member": "api_key", "command": "x", "period": 60}
                )
            put = ("--member", "api_key", "--command", "forward", "--period", "3600")
            made = server.ostiary("secret", "rotation", "put", PATH, *put)
            assert (made["command"], made["url"], made["registration"]) == ("forward", "", "")

            def rotate() -> None:
                with suppress(Exception):  # the server is killed
                    live.api("POST", "/secrets/rotate", {"path": PATH})

            thread = threading.Thread(target=rotate)
            thread.start()
            eventually(lambda: service.heard)
            [first] = heard(service)
            assert is_running(first["pid"])
            process.kill()
            thread.join(PATIENCE_S)
    eventually(lambda: not is_running(first["pid"]))
    service.silence.set()
    with running(folder, *options) as server, ServerFixture(server, tmp_path) as live:
        assert live.api("POST", "/secrets/get", {"path": PATH})["data"] == {"api_key": "first"}
        server.ostiary("secret", "rotate", PATH)
        [first, second] = heard(service)
        assert (second["id"], second["value"]) == (first["id"], first["value"])
        assert live.api("POST", "/secrets/get", {"path": PATH})["data"] == {"api_key": first["value"]}


# --- registrations of OAuth clients


class RegisteredClient:
    """A client that has registered itself at npm's `oidc-provider`."""

    def __init__(self, issuer: str, token: str) -> None:
        self.issuer = issuer
        metadata = {"grant_types": ["client_credentials"], "redirect_uris": [], "response_types": []}
        answer = httpx2.post(f"{issuer}/reg", json=metadata, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 201, answer.text
        self.registration: dict[str, Any] = answer.json()
        self.uri = self.registration["registration_client_uri"]

    @property
    def secret(self) -> dict[str, Any]:
        """The value that is stored."""
        return {name: self.registration[name] for name in ("client_id", "client_secret", "registration_access_token")}

    def works(self, client_secret: str) -> bool:
        """Return whether the provider accepts a client secret."""
        pair = (self.registration["client_id"], client_secret)
        return httpx2.post(f"{self.issuer}/token", data={"grant_type": "client_credentials"}, auth=pair).is_success

    def update(self) -> dict[str, Any]:
        """Update the registration without the server."""
        token = {"authorization": f"Bearer {self.registration['registration_access_token']}"}
        present = httpx2.get(self.uri, headers=token).json()
        kept = {name: value for name, value in present.items() if name not in WITHOUT}
        updated: dict[str, Any] = httpx2.put(self.uri, json=kept, headers=token).json()
        return updated


WITHOUT = {"registration_access_token", "registration_client_uri", "client_secret_expires_at", "client_id_issued_at"}


@contextmanager
def registered(*, rotates_secret: bool = True, rotates_token: bool = True) -> Iterator[RegisteredClient]:
    options = {"rotatesSecret": rotates_secret, "rotatesToken": rotates_token}
    with serving_provider("registration-provider.mjs", options, alg="RS256") as (port, token):
        yield RegisteredClient(f"http://127.0.0.1:{port}", token)


async def test_a_provider_makes_a_new_client_secret_when_the_registration_is_updated(
    open_world: World, clock: Clock
) -> None:
    world = open_world
    with registered() as client:
        await schedule(world, client.secret | {"scope": "all"}, member="client_secret", registration=client.uri)
        seen = [client.secret]
        for _ in range(2):
            await wire_rotations.rotate_due(world)
            assert row_of(world).error == ""
            value = await read(world)
            assert client.works(value["client_secret"])
            assert not client.works(seen[-1]["client_secret"]), "this provider ends the old secret at once"
            assert value["registration_access_token"] != seen[-1]["registration_access_token"]
            assert (value["client_id"], value["scope"]) == (client.registration["client_id"], "all")
            row = row_of(world)
            assert (row.retire_at, row.due_at) == (None, clock() + 3600 * SECOND)
            seen.append(value)
            clock.advance(3600)
        await wire_rotations.rotate_due(world)
        assert (await read(world))["client_secret"] not in [one["client_secret"] for one in seen]
        written = str([entries_of(world, f"rotation.{kind}") for kind in ("begin", "end", "store")])
        assert not any(text in written for one in seen for text in (one["client_secret"], "Bearer"))


async def test_the_client_secret_of_an_update_with_a_lost_response_is_recovered(open_world: World) -> None:
    with registered(rotates_token=False) as client:
        await schedule(open_world, client.secret, member="client_secret", registration=client.uri)
        lost = client.update()["client_secret"]
        assert client.works(lost)
        await wire_rotations.rotate_due(open_world)
        assert (await read(open_world))["client_secret"] == lost
        assert client.works(lost), "the registration was not updated again"


async def test_a_failed_rotation_of_a_registration_keeps_the_old_client_secret(open_world: World, clock: Clock) -> None:
    world = open_world
    with registered(rotates_secret=False) as client:
        await schedule(world, client.secret, member="client_secret", registration=client.uri)
        await wire_rotations.rotate_due(world)
        assert row_of(world).error == "the provider did not change the client secret when the registration was updated"
        value = await read(world)
        assert value["client_secret"] == client.secret["client_secret"]
        assert value["registration_access_token"] != client.secret["registration_access_token"], "it is stored"
        other = {**value, "client_id": "another"}
        await act(world, "vault.write", lambda a: keyvalue.put_value(a, "secret", "app/shop", other))
        clock.advance(60)
        await wire_rotations.rotate_due(world)
        assert row_of(world).error == "the response of the provider is the registration of another client"
        wrong = {**value, "registration_access_token": "wrong"}
        await act(world, "vault.write", lambda a: keyvalue.put_value(a, "secret", "app/shop", wrong))
        clock.advance(60)
        await wire_rotations.rotate_due(world)
        assert row_of(world).error == "the provider answers 401"
        assert client.works(value["client_secret"])
        assert len(entries_of(world, "rotation.fail")) == 3


async def test_a_new_client_secret_is_stored_even_if_its_rotation_was_deleted(open_world: World) -> None:
    value = {"client_secret": "first", "registration_access_token": "\u00e9"}
    service: dict[str, Any] = {"member": "client_secret", "registration": "https://as.example/r"}
    with pytest.raises(NothingStored):
        await schedule(open_world, {"client_secret": "first"}, **service)
    await schedule(open_world, value, **service)
    await wire_rotations.rotate_due(open_world)
    assert row_of(open_world).error == "the secret has no valid `registration_access_token`"
    call = await act(open_world, "rotation.begin", lambda a: rotations.begin_call(a, PATH))
    assert call is not None
    assert "first" not in repr(call)
    await act(open_world, "rotation.delete", lambda a: rotations.delete_rotation(a, PATH))
    changed = {"client_secret": "second"}
    await act(open_world, "rotation.end", lambda a: rotations.store_answer(a, PATH, call, changed))
    assert await read(open_world) == {**value, **changed}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"client_id": "c", "client_secret": 1}',
        b'{"client_id": "c", "client_secret": ""}',
        b'{"client_id": "c", "client_secret": "a\\n"}',
        b'{"client_id": "c", "client_secret": "%s"}' % (b"x" * 4097),
        b'{"client_id": "c", "registration_access_token": null}',
        b'{"client_id": "d", "client_secret": "x"}',
        b'{"client_secret": "x"}',
        b'{"client_id": "c", "client_id": "c"}',
    ],
)
def test_a_response_that_is_not_a_registration_is_refused(body: bytes) -> None:
    with pytest.raises(ServiceRefused):
        parse_registration(200, body, current={"client_id": "c"})
    fitting = b'{"client_id": "c", "client_secret": "%s"}' % (b"x" * 4096)
    assert parse_registration(200, fitting, current={})
    for status in (201, 302, 401, 500):
        with pytest.raises(Refused, match=f"answers {status}"):
            parse_registration(status, fitting, current={})
