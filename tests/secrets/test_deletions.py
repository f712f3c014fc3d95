"""Deletions that the API of AWS Secrets Manager has scheduled: a secret is there until its time, and gone after it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from harness.clock import Clock
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.secrets import wire_aws
from ostiaryd.secrets.flows import deletions, keyvalue
from ostiaryd.secrets.model.aws import DELETION, ArnScope, SecretExists
from ostiaryd.secrets.model.request import NothingStored
from ostiaryd.secrets.store import deletions as store
from ostiaryd.secrets.store import keyvalue as keyvalue_store
from tests.secrets.vault_fixtures import seal_all, unseal
from tests.support.incident_fixtures import entries_of

NAME = "app/shop"
WEEK_S = 7 * 86_400
PLACE = wire_aws._Place(ArnScope("us-east-1", "0" * 12), bytes)


async def run(world: World, flow: Callable[[Act, str, Any, Any], Any], **members: Any) -> None:
    """Run an action of the API of AWS on the secret."""
    await act(world, "vault.write", lambda a: flow(a, NAME, wire_aws._Body(**members), PLACE))


async def schedule(world: World) -> None:
    """Store a secret with two versions, and schedule its deletion for the end of a week."""
    await run(world, wire_aws._create, Name=NAME, SecretString="one", ClientRequestToken="a" * 32)
    await run(world, wire_aws._put_value, SecretString="two", ClientRequestToken="b" * 32)
    await run(world, wire_aws._delete, RecoveryWindowInDays=7)


def versions(world: World) -> list[int]:
    return keyvalue_store.version_numbers(world.db.read(), "secret", NAME)


def scheduled(world: World) -> list[str]:
    return store.due(world.db.read(), now=1 << 62, limit=10)


async def test_a_secret_is_deleted_with_its_versions_at_the_end_of_its_window(world: World, clock: Clock) -> None:
    await schedule(world)
    clock.advance(WEEK_S - 1)
    await deletions.delete_due(world)
    assert (versions(world), scheduled(world)) == ([1, 2], [NAME])
    clock.advance(1)
    await seal_all(world)
    await deletions.delete_due(world)
    assert versions(world) == [1, 2], "sealed secrets do not change"
    await unseal(world)
    await deletions.delete_due(world)
    assert (versions(world), scheduled(world)) == ([], [])
    with pytest.raises(NothingStored):
        await run(world, wire_aws._restore)
    entry = entries_of(world, "vault.delete")[-1]
    assert (entry.object, entry.agent, entry.detail) == (f"secret/{NAME}", None, {"operation": "scheduled"})


async def test_a_restored_secret_stays(world: World, clock: Clock) -> None:
    await schedule(world)
    await run(world, wire_aws._restore)
    assert scheduled(world) == []
    clock.advance(WEEK_S)
    await run(world, wire_aws._delete, RecoveryWindowInDays=7)
    await deletions.delete_due(world)
    assert versions(world) == [1, 2], "the window begins again"
    secret = keyvalue_store.get(world.db.read(), "secret", NAME)
    assert secret is not None
    kept = {key: value for key, value in secret.custom.items() if key != DELETION}
    await act(
        world, "vault.write", lambda a: keyvalue.set_metadata(a, "secret", NAME, replace(secret, custom=kept))
    )  # as a Vault client that replaces the custom metadata
    clock.advance(WEEK_S)
    await deletions.delete_due(world)
    assert (versions(world), scheduled(world)) == ([1, 2], [])
    assert entries_of(world, "vault.delete") == []


async def test_a_new_or_restored_current_version_cancels_a_scheduled_deletion(world: World, clock: Clock) -> None:
    await schedule(world)
    await act(world, "vault.write", lambda a: keyvalue.put_value(a, "secret", NAME, {"live": 1}))
    await run(world, wire_aws._put_value, SecretString="four", ClientRequestToken="d" * 32)
    clock.advance(WEEK_S)
    await deletions.delete_due(world)
    assert (versions(world), scheduled(world)) == ([1, 2, 3, 4], [])
    for number, is_kept in ((4, True), (3, False)):
        await run(world, wire_aws._delete, RecoveryWindowInDays=7)
        await act(world, "vault.write", partial(keyvalue.restore_versions, mount="secret", path=NAME, numbers=[number]))
        clock.advance(WEEK_S)
        await deletions.delete_due(world)
        assert (bool(versions(world)), scheduled(world)) == (is_kept, []), number


async def test_a_name_can_be_reused_after_the_recovery_window(world: World, clock: Clock) -> None:
    await schedule(world)
    clock.advance(WEEK_S)
    await run(world, wire_aws._create, Name=NAME, SecretString="new", ClientRequestToken="c" * 32)
    assert (versions(world), scheduled(world)) == ([1], [])
    with pytest.raises(SecretExists):
        await run(world, wire_aws._create, Name=NAME, SecretString="other", ClientRequestToken="d" * 32)
    await run(world, wire_aws._delete)
    await run(world, wire_aws._delete, ForceDeleteWithoutRecovery=True)
    assert (versions(world), scheduled(world)) == ([], [])


async def test_a_scheduled_deletion_of_an_earlier_release_gets_its_due_time(world: World, clock: Clock) -> None:
    await schedule(world)
    await world.writer.submit(lambda tx: store.put(tx, NAME, due_at=0))
    await deletions.delete_due(world)
    assert versions(world) == [1, 2]
    assert store.due(world.db.read(), now=clock(), limit=10) == []
    clock.advance(WEEK_S)
    await deletions.delete_due(world)
    assert versions(world) == []
