"""Secrets of administrators: `ostiary secret`, and the operations behind it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S, eventually
from harness.registry_fixtures import newest_entry
from harness.server import COMMAND
from ostiary.cli.secrets import _parse_members
from ostiary.cli.usage import Usage
from ostiary.protocol.errors import Invalid, Malformed, Refused
from ostiary.protocol.jose import b64u
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.secrets.flows import operators
from ostiaryd.secrets.model.request import NothingStored
from tests.secrets.vault_fixtures import VaultStage

CANARY = "0p3rat0r-c4n4ry"


def command(server: ServerFixture, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the command line, whatever it says."""
    words = (str(COMMAND), "--data-dir", str(server.server.folder), *words)
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_an_administrator_puts_gets_lists_and_deletes(vault: VaultStage, tmp_path: Path) -> None:
    server, ostiary = vault.live_server, vault.live_server.server.ostiary
    path, file = f"secret/{vault.folder}/shop", tmp_path / "key.txt"
    file.write_text(f"{CANARY}\n")
    assert ostiary("secret", "put", path, f"key=@{file}", "user=bot")["version"] == 1
    read = vault.login().secrets.kv.v2.read_secret_version(path=f"{vault.folder}/shop", raise_on_deleted_version=True)
    assert read["data"]["data"] == {"key": CANARY, "user": "bot"}
    shown = command(server, "secret", "get", path, "--field", "key")
    assert (shown.stdout, shown.returncode) == (CANARY, 0)
    assert command(server, "secret", "get", path, "--field", "none").returncode == 2
    assert ostiary("secret", "list", f"secret/{vault.folder}") == ["shop"]
    assert ostiary("secret", "delete", path)["deleted"] == "current"
    refused = command(server, "secret", "get", path)
    assert (refused.returncode, "deleted" in refused.stderr) == (1, True)
    actions = {one["action"] for one in server.entries(limit=500) if one.get("object") == path}
    assert actions >= {"vault.write", "vault.read", "vault.delete"}
    assert CANARY not in json.dumps(server.entries(limit=500))


async def put(world: World, path: str, value: Any, **more: Any) -> int:
    stored = await act(world, "vault.write", lambda a: operators.put_secret(a, path, value, **more))
    return stored.version.version


async def get(world: World, path: str, number: int = 0) -> Any:
    stored = await act(world, "vault.read", lambda a: operators.get_secret(a, path, number))
    assert CANARY not in repr(stored)
    return None if stored.value is None else json.loads(stored.value)


async def delete(world: World, path: str, *, with_versions: bool = False) -> None:
    await act(world, "vault.delete", lambda a: operators.delete_secret(a, path, with_versions=with_versions))


@pytest.mark.parametrize(
    ("number", "error"), [(-1, Invalid), (2**53 - 1, NothingStored), (2**53, Invalid), (2**70, Invalid)]
)
async def test_an_invalid_or_unknown_version_number_is_refused(world: World, number: int, error: type[Refused]) -> None:
    await put(world, "secret/app/db", {"c": CANARY})
    with pytest.raises(error):
        await get(world, "secret/app/db", number)
    assert newest_entry(world).outcome == "refused"


async def test_versions_are_kept_according_to_the_type_of_the_mount(world: World) -> None:
    path, kv = "secret/app/db", "kv/app/db"
    assert [await put(world, path, {"n": n, "c": CANARY}) for n in (1, 2)] == [1, 2]
    with pytest.raises(Invalid) as refusal:
        await put(world, path, {}, cas=1)
    assert refusal.value.code == "cas_mismatch"
    assert await put(world, path, {"n": 3}, cas=2) == 3
    assert [(await get(world, path, n))["n"] for n in (0, 1, 2, 3)] == [3, 1, 2, 3]
    await delete(world, path)
    with pytest.raises(NothingStored, match="deleted"):
        await get(world, path)
    assert (await get(world, path, 2))["n"] == 2
    await delete(world, path, with_versions=True)
    with pytest.raises(NothingStored):
        await delete(world, path)
    with pytest.raises(NothingStored):
        await get(world, path, 2)
    assert [await put(world, kv, {"n": n}) for n in (1, 2)] == [1, 2]
    assert await get(world, kv) == {"n": 2}
    with pytest.raises(NothingStored):
        await get(world, kv, 1)
    assert operators.list_names(world.db.read(), "kv/app") == operators.list_names(world.db.read(), "kv/app/") == ["db"]
    await delete(world, kv)
    with pytest.raises(NothingStored):
        operators.list_names(world.db.read(), "kv/app")


WRONG = ("other/a", "secret", "secret/", "secret/a/", "secret/../a", "/secret/a", "transit/k", "secret//a", "", "s\0")


async def test_a_malformed_secret_path_is_refused(world: World) -> None:
    for path in WRONG:
        for wrong in (put(world, path, {}), get(world, path), delete(world, path)):
            with pytest.raises((Invalid, Malformed)):
                await wrong
            assert newest_entry(world).outcome == "refused"
        if path not in ("secret", "secret/", "secret/a/"):
            with pytest.raises((Invalid, Malformed)):
                operators.list_names(world.db.read(), path)


def test_members_are_read_from_arguments_or_files(tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_text("x=y\n\n")
    assert _parse_members(["a=", "b==c", f"d=@{file}"]) == {"a": "", "b": "=c", "d": "x=y"}
    for words in (["a"], ["=x"], ["a=1", "a=2"], ["a=@none"], [CANARY]):
        with pytest.raises(Refused) as refusal:
            _parse_members(words)
        assert isinstance(refusal.value, Usage)
        assert CANARY not in refusal.value.message


def test_an_operator_seals_unseals_and_rotates(vault: VaultStage, tmp_path: Path) -> None:
    server, ostiary = vault.live_server, vault.live_server.server.ostiary
    path, file = f"secret/{vault.folder}/db", tmp_path / "unseal.key"
    server.api("POST", "/secrets/put", {"path": path, "data": {"a": "b"}})
    sealed = ostiary("secret", "seal", "--key-file", str(file))
    assert (sealed["sealed"], file.stat().st_mode & 0o777) == (True, 0o600)
    try:
        refused = command(server, "secret", "get", path)
        assert (refused.returncode, "sealed" in refused.stderr) == (3, True)
        [line] = [line for line in server.api("GET", "/doctor")["lines"] if line["name"] == "secrets"]
        assert (line["state"], "sealed" in line["saw"]) == ("weak", True)
        server.api("POST", f"/agents/{vault.name}/suspend", {})  # stopping goes on
        other = tmp_path / "other.key"
        other.write_text(b64u(os.urandom(32)))
        assert command(server, "secret", "unseal", "--key-file", str(other)).returncode == 1
        other.write_text("short")
        assert command(server, "secret", "unseal", "--key-file", str(other)).returncode == 2
    finally:
        assert ostiary("secret", "unseal", "--key-file", str(file))["sealed"] is False
    newest = ostiary("secret", "rotate-keys")["wrapping_keys"][-1]
    assert newest["state"] == "active"
    eventually(lambda: server.api("GET", "/secrets/seal")["wrapping_keys"] == [newest])
    assert server.api("POST", "/secrets/get", {"path": path})["data"] == {"a": "b"}
    assert file.read_text().strip() not in json.dumps(server.entries(limit=500))
