"""Rotation of stored values by signed calls: both values in the grace, and the old value in force after a failure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace
from standardwebhooks import Webhook

from harness.clock import Clock
from harness.live_server import ServerFixture
from ostiary.protocol.errors import Conflict, Invalid, NotFound, Refused
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.secrets import wire_rotations
from ostiaryd.secrets.flows import (
    deletions,
    keyvalue,
    operators,
    renew_envelopes,
    rotate_keys,
    rotations,
    version_tokens,
)
from ostiaryd.secrets.flows.rotations import RotationCall
from ostiaryd.secrets.model import aws
from ostiaryd.secrets.model.request import SECOND, NothingStored, split_path
from ostiaryd.secrets.model.rotation import LONGEST_PERIOD_S, RotationConfig, check_config
from ostiaryd.secrets.model.schedule import Schedule, parse_schedule
from ostiaryd.secrets.store import keyvalue as keyvalue_store
from ostiaryd.secrets.store import rotations as store
from tests.secrets.vault_fixtures import seal_all, unseal
from tests.support.incident_fixtures import entries_of
from tests.support.webhook_receiver import Receiver, receiving

PATH = "secret/app/shop"


@pytest.fixture
def service() -> Iterator[Receiver]:
    """The service that knows the value."""
    with receiving() as receiver:
        yield receiver


async def schedule(world: World, service: Receiver, *, grace: int = 600) -> str:
    """Store a secret with a rotation each hour; the signing key."""
    value = {"api_key": "first", "user": "shop"}
    await act(world, "vault.write", lambda a: keyvalue.put_value(a, "secret", "app/shop", value))
    config = RotationConfig(member="api_key", url=service.url, period=3600, grace=grace)
    return await act(world, "rotation.put", lambda a: rotations.put_rotation(a, PATH, config))


async def read(world: World, version: int = 0) -> dict[str, Any]:
    def flow(a: Act) -> Any:
        return json.loads(keyvalue.read_value(a, "secret", "app/shop", version)[2] or b"null")

    value: dict[str, Any] = await act(world, "vault.read", flow)
    return value


async def begin_call(world: World) -> RotationCall:
    """The call that is sent to the service now."""
    call = await act(world, "rotation.begin", lambda a: rotations.begin_call(a, PATH))
    assert call is not None
    return call


def calls(service: Receiver, key: str) -> list[dict[str, Any]]:
    """The calls that the service has verified."""
    verified = []
    for headers, body in service.heard:
        id, at = headers["webhook-id"], datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        assert headers["webhook-signature"] == Webhook(key).sign(id, at, body.decode())
        verified.append(json.loads(body) | {"id": id})
    return verified


def open_to(world: World) -> World:
    """The world of a server that may call services on this machine."""
    return dataclasses.replace(world, config=replace(world.config, private_hosts="127.0.0.1"))


async def test_an_accepted_value_becomes_current_and_the_old_value_is_retired_after_the_grace_period(
    world: World, clock: Clock, service: Receiver
) -> None:
    world = open_to(world)
    key = await schedule(world, service)
    await wire_rotations.rotate_due(world)
    assert service.heard == [], "the first rotation is due after a period"
    clock.advance(3600)
    await wire_rotations.rotate_due(world)
    [rotate] = calls(service, key)
    new = rotate["data"]["value"]
    assert (rotate["type"], rotate["data"]["path"], rotate["data"]["member"]) == ("secret.rotate", PATH, "api_key")
    assert len(new) == 43
    secret = keyvalue_store.get(world.db.read(), *split_path(PATH))
    assert secret is not None
    assert (secret.reader, secret.read_at) == (None, None), "reads of the server itself are no uses"
    assert await read(world) == {"api_key": new, "user": "shop"}
    assert (await read(world, 1))["api_key"] == "first"
    with pytest.raises(Conflict, match="grace"):
        await act(world, "rotation.request", lambda a: rotations.request_rotation(a, PATH))
    clock.advance(599)
    await wire_rotations.rotate_due(world)
    assert len(service.heard) == 1
    clock.advance(1)
    await wire_rotations.rotate_due(world)
    assert calls(service, key)[1]["type"] == "secret.retire"
    assert "value" not in calls(service, key)[1]["data"]
    row = store.get_rotation(world.db.read(), PATH)
    assert row is not None
    assert (row.retire_at, row.due_at) == (None, clock() + 3000 * SECOND)
    await act(world, "rotation.request", lambda a: rotations.request_rotation(a, PATH))
    await wire_rotations.rotate_due(world)
    assert calls(service, key)[2]["data"]["value"] not in ("first", new)
    written = json.dumps([str(one) for one in entries_of(world, "rotation.end")])
    assert new not in written
    assert "shop" in written


async def test_a_secret_that_requires_check_and_set_is_rotated(world: World, clock: Clock, service: Receiver) -> None:
    world = open_to(world)
    key, at = await schedule(world, service), split_path(PATH)

    def require(a: Act) -> None:
        secret = keyvalue_store.get(a.tx, *at)
        assert secret is not None
        keyvalue_store.put(a.tx, *at, replace(secret, cas_required=True))

    await act(world, "vault.write", require)
    clock.advance(3600)
    await wire_rotations.rotate_due(world)
    [rotate] = calls(service, key)
    assert await read(world) == {"api_key": rotate["data"]["value"], "user": "shop"}
    with pytest.raises(Invalid, match="check-and-set"):
        await act(world, "vault.write", lambda a: keyvalue.put_value(a, *at, {"api_key": "x"}))


async def test_a_failed_rotation_leaves_the_old_value_and_sends_the_same_value_again(
    world: World, clock: Clock, service: Receiver
) -> None:
    world = open_to(world)
    key = await schedule(world, service)
    clock.advance(3600)
    service.answers = [(500, {}), (302, {"location": service.url}), (200, {})]
    for attempts in (1, 2):
        await wire_rotations.rotate_due(world)
        assert (await read(world))["api_key"] == "first"
        row = store.get_rotation(world.db.read(), PATH)
        assert row is not None
        assert (row.attempts, row.error) == (attempts, f"the service answers {500 if attempts == 1 else 302}")
        await wire_rotations.rotate_due(world)
        assert len(service.heard) == attempts, "the next attempt waits"
        clock.advance(2)
    await act(world, "vault.rotate", rotate_keys)
    assert await renew_envelopes(world) >= 3, "also the pending value and the signing key"
    current = {"api_key": "first", "user": "changed"}
    await act(world, "vault.write", lambda a: keyvalue.put_value(a, "secret", "app/shop", current))
    await wire_rotations.rotate_due(world)
    heard = calls(service, key)
    assert len({one["id"] for one in heard}) == len({one["data"]["value"] for one in heard}) == 1
    assert await read(world) == {"api_key": heard[0]["data"]["value"], "user": "changed"}
    failures = entries_of(world, "rotation.fail")
    assert [one.object for one in failures] == [PATH, PATH]
    assert heard[0]["data"]["value"] not in str(failures)


async def test_a_rotation_ends_with_its_secret(world: World, clock: Clock, service: Receiver) -> None:
    """The deletion ends the schedule and the grace period. A new secret at the path has no rotation, and a call that
    was running changes no value of it.
    """
    world = open_to(world)
    value = {"api_key": "new", "user": "new"}
    ways: tuple[Callable[[Act], None], ...] = (
        lambda a: keyvalue.delete_secret(a, "secret", "app/shop"),
        lambda a: operators.delete_secret(a, PATH, with_versions=True),
    )
    for delete in ways:
        await schedule(world, service)
        clock.advance(3600)
        await wire_rotations.rotate_due(world)  # a grace period begins
        await act(world, "vault.delete", delete)
        assert store.count(world.db.read()) == 0
        assert entries_of(world, "vault.delete")[-1].detail == {"rotation": "removed"}
        await act(world, "vault.write", lambda a: keyvalue.put_value(a, "secret", "app/shop", value))
        heard = len(service.heard)
        clock.advance(7200)
        await wire_rotations.rotate_due(world)
        assert (len(service.heard), await read(world)) == (heard, value)
        await act(world, "vault.delete", delete)
        assert not entries_of(world, "vault.delete")[-1].detail
    heard = len(service.heard)
    await schedule(world, service)
    await world.writer.submit(lambda tx: keyvalue_store.delete(tx, "secret", "app/shop"))  # as an earlier release
    clock.advance(3600)
    await wire_rotations.rotate_due(world)
    assert (store.count(world.db.read()), len(service.heard)) == (0, heard)
    await schedule(world, service)
    running = await begin_call(world)
    await act(world, "vault.delete", ways[0])
    await schedule(world, service)
    with pytest.raises(Conflict):
        await act(world, "rotation.end", lambda a: rotations.end_call(a, PATH, running, is_old_valid=True))
    assert (await read(world))["api_key"] == "first"


async def test_a_late_registration_response_does_not_change_a_new_secret_at_the_path(
    world: World, clock: Clock, service: Receiver
) -> None:
    first = {"client_secret": "first", "registration_access_token": "t"}
    await act(world, "vault.write", lambda a: keyvalue.put_value(a, "secret", "app/shop", first))
    config = RotationConfig(member="client_secret", registration=service.url, period=3600, grace=0)
    await act(world, "rotation.put", lambda a: rotations.put_rotation(a, PATH, config))
    call = await begin_call(world)
    await act(world, "vault.delete", lambda a: keyvalue.delete_secret(a, "secret", "app/shop"))
    clock.advance(1)
    await act(world, "vault.write", lambda a: keyvalue.put_value(a, "secret", "app/shop", {"client_secret": "new"}))
    changes = {"client_secret": "second"}
    with pytest.raises(Conflict):
        await act(world, "rotation.store", lambda a: rotations.store_answer(a, PATH, call, changes))
    assert await read(world) == {"client_secret": "new"}


async def test_a_deleted_version_is_not_rotated_and_a_scheduled_deletion_skips_rotations(
    world: World, clock: Clock, service: Receiver
) -> None:
    """The service must not accept a value that the server then cannot store. The end of a grace period needs none."""
    world = open_to(world)
    await schedule(world, service)
    clock.advance(3600)
    await wire_rotations.rotate_due(world)
    assert len(service.heard) == 1
    await act(world, "vault.delete", lambda a: keyvalue.delete_versions(a, "secret", "app/shop"))
    clock.advance(600)
    await wire_rotations.rotate_due(world)
    assert [json.loads(body)["type"] for _, body in service.heard] == ["secret.rotate", "secret.retire"]
    clock.advance(3000)
    await wire_rotations.rotate_due(world)
    row = rotations.find_rotation(world.db.read(), PATH)
    assert (len(service.heard), row.attempts, row.error) == (2, 1, "the current version is deleted")
    await act(world, "vault.write", lambda a: keyvalue.restore_versions(a, "secret", "app/shop", [2]))
    clock.advance(60)
    await wire_rotations.rotate_due(world)
    clock.advance(600)
    await wire_rotations.rotate_due(world)
    assert len(service.heard) == 4
    secret = keyvalue_store.get(world.db.read(), *split_path(PATH))
    assert secret is not None
    end = clock() + 7 * 86_400 * SECOND
    await act(world, "vault.delete", lambda a: deletions.schedule_deletion(a, "app/shop", secret, due_at=end))
    failures = len(entries_of(world, "rotation.fail"))
    for _ in range(3):
        clock.advance(3600)
        await wire_rotations.rotate_due(world)
    row = rotations.find_rotation(world.db.read(), PATH)
    assert (len(service.heard), row.attempts, row.error) == (4, 0, "")
    assert len(entries_of(world, "rotation.fail")) == failures, "nothing has failed"
    with pytest.raises(Conflict, match="scheduled for deletion"):
        await act(world, "rotation.request", lambda a: rotations.request_rotation(a, PATH))
    await act(world, "vault.write", lambda a: deletions.cancel_deletion(a, "app/shop", secret))
    clock.advance(3600)
    await wire_rotations.rotate_due(world)
    assert len(service.heard) == 5


async def test_an_accepted_value_is_stored_in_the_member_named_by_its_call(
    world: World, clock: Clock, service: Receiver
) -> None:
    world = open_to(world)
    await schedule(world, service)
    call = await begin_call(world)
    config = RotationConfig(member="user", url=service.url, period=3600, grace=0)
    await act(world, "rotation.put", lambda a: rotations.put_rotation(a, PATH, config))
    await act(world, "rotation.end", lambda a: rotations.end_call(a, PATH, call, is_old_valid=True))
    assert await read(world) == {"api_key": call.data["value"], "user": "shop"}


async def test_a_due_rotation_of_sealed_secrets_runs_after_the_unseal(
    world: World, clock: Clock, service: Receiver
) -> None:
    world = open_to(world)
    key = await schedule(world, service)
    clock.advance(3600)
    await seal_all(world)
    await wire_rotations.rotate_due(world)
    assert service.heard == []
    await unseal(world)
    await wire_rotations.rotate_due(world)
    assert (await read(world))["api_key"] == calls(service, key)[0]["data"]["value"]


async def test_a_rotation_request_during_a_call_does_not_change_the_token_of_the_new_version(
    world: World, clock: Clock, service: Receiver
) -> None:
    await schedule(world, service)

    async def request(token: str = "") -> str:
        """Request a rotation; return the token that the new version gets."""
        await act(world, "vault.write", lambda a: rotations.request_rotation(a, PATH, token=token))
        row = store.get_rotation(world.db.read(), PATH)
        assert row is not None
        return row.token

    assert [await request(), await request("first"), await request()] == ["", "first", "first"]
    until = clock() + SECOND
    await world.writer.submit(lambda tx: store.claim(tx, PATH, until=until, is_only=False))
    assert [await request("first"), await request()] == ["first", "first"]
    with pytest.raises(Conflict, match="in progress"):
        await request("second")
    clock.advance(1)
    assert await request("second") == "second"


async def test_a_request_token_stays_with_the_first_version_that_got_the_token(
    world: World, clock: Clock, service: Receiver
) -> None:
    """The server repeats a call with the token of a request. Meanwhile, another request stores a value with it."""
    world, name, token = open_to(world), "app/shop", "t" * 32
    await schedule(world, service)
    service.answers = [(500, {})]
    await act(world, "vault.write", lambda a: rotations.request_rotation(a, PATH, token=token))
    await wire_rotations.rotate_due(world)

    def store_value(a: Act) -> None:
        secret, version = keyvalue.put_value(a, "secret", name, {"api_key": "second"})
        version_tokens.set_token(a, "secret", name, secret, version.version, token)

    await act(world, "vault.write", store_value)
    clock.advance(60)
    await wire_rotations.rotate_due(world)
    secret = keyvalue_store.get(world.db.read(), "secret", name)
    assert secret is not None
    ids = [aws.version_id(secret.custom, name, version) for version in (2, 3)]
    assert (secret.current_version, ids[0], len(set(ids))) == (3, token, 2)


async def test_a_repeated_schedule_does_not_delay_the_first_rotation(
    world: World, clock: Clock, service: Receiver
) -> None:
    clock.advance(600)  # the first rotation is not due at a full hour
    await schedule(world, service)

    async def due_after(period: int) -> int:
        """Set a period as an agent; the seconds from now to the first rotation."""
        plan = Schedule(period, period)
        await act(world, "vault.write", lambda a: rotations.schedule_rotation(a, PATH, plan))
        return (rotations.find_rotation(world.db.read(), PATH).due_at - clock()) // SECOND

    clock.advance(100)
    assert [await due_after(one) for one in (3600, 1800, 3600)] == [3500, 1700, 3500]
    clock.advance(2900)
    assert [await due_after(one) for one in (3600, 3300, 1800, 3600)] == [600, 300, -1200, 600]
    hourly = parse_schedule("cron(0 * * * ? *)")
    for _ in range(3):
        clock.advance(100)
        await act(world, "vault.write", lambda a: rotations.schedule_rotation(a, PATH, hourly))
    assert await due_after(3600) == 300, "also not with a cron expression between"
    await act(world, "vault.delete", lambda a: rotations.cancel_rotation(a, PATH))
    assert await due_after(3600) == 3600, "a cancelled rotation begins again"


async def test_a_new_configuration_of_a_cancelled_rotation_restarts_its_schedule(
    world: World, clock: Clock, service: Receiver
) -> None:
    world = open_to(world)
    await schedule(world, service)
    service.answers = [(500, {})]
    clock.advance(3600)
    await wire_rotations.rotate_due(world)
    failed = rotations.find_rotation(world.db.read(), PATH)
    assert failed.pending is not None
    config = replace(failed.config, period=7200)
    await act(world, "rotation.put", lambda a: rotations.put_rotation(a, PATH, config))
    assert rotations.find_rotation(world.db.read(), PATH).due_at == failed.due_at, "the call must be repeated"
    await act(world, "vault.delete", lambda a: rotations.cancel_rotation(a, PATH))
    await act(world, "rotation.put", lambda a: rotations.put_rotation(a, PATH, config))
    assert rotations.find_rotation(world.db.read(), PATH).due_at == clock() + 7200 * SECOND


async def test_a_schedule_needs_a_stored_member_and_times_within_limits(world: World, service: Receiver) -> None:
    fitting: dict[str, Any] = {"member": "a", "url": service.url, "period": 60, "grace": 59}
    check_config(PATH, RotationConfig(**fitting))
    check_config(PATH, RotationConfig(**{**fitting, "period": LONGEST_PERIOD_S, "member": "a" * 128}))
    for wrong in (
        {"period": 59},
        {"period": LONGEST_PERIOD_S + 1},
        {"grace": 60},
        {"grace": -1},
        {"member": ""},
        {"member": "a" * 129},
        {"member": "a\n"},
    ):
        with pytest.raises(Invalid):
            check_config(PATH, RotationConfig(**{**fitting, **wrong}))
    for path in ("kv/app/shop", "secret/", "secret/app/", "secret", "secret/../x", "transit/x"):
        with pytest.raises(Refused):
            check_config(path, RotationConfig(**fitting))
    await schedule(world, service)
    for path, member in ((PATH, "other"), ("secret/none", "api_key")):
        config = RotationConfig(member=member, url=service.url, period=60, grace=0)
        with pytest.raises(NothingStored):
            await act(world, "rotation.put", lambda a, p=path, c=config: rotations.put_rotation(a, p, c))  # type: ignore[misc]
    for flow in (rotations.request_rotation, rotations.delete_rotation):
        with pytest.raises(NotFound):
            await act(world, "rotation.request", lambda a, flow=flow: flow(a, "secret/none"))  # type: ignore[misc]
    await act(world, "rotation.delete", lambda a: rotations.delete_rotation(a, PATH))
    assert store.count(world.db.read()) == 0


def test_administrators_schedule_and_rotate_by_the_command_line(vault_server: ServerFixture) -> None:
    ostiary, api = vault_server.server.ostiary, vault_server.api
    api("POST", "/secrets/put", {"path": "secret/rotated", "data": {"key": "first"}})
    made = ostiary(
        "secret",
        "rotation",
        "put",
        "secret/rotated",
        "--member",
        "key",
        "--url",
        "https://shop.example.com/hook",
        "--period",
        "3600",
    )
    assert made["signing_key"].startswith("whsec_")
    [row] = ostiary("secret", "rotation", "list")
    assert (row["path"], row["last_at"]) == ("secret/rotated", None)
    body = {"path": "secret/rotated", "member": "key", "url": "http://127.0.0.1:1/", "period": 60}
    with pytest.raises(AssertionError, match="must be https|not public"):
        api("POST", "/secrets/rotations", body)
    assert "signing_key" not in row
    ostiary("secret", "rotation", "remove", "secret/rotated")
    assert ostiary("secret", "rotation", "list") == []
