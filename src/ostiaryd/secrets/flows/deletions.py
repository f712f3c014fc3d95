"""Deletions of secrets that the API of AWS Secrets Manager has scheduled: a secret can be restored until its time."""

from __future__ import annotations

from functools import partial

from msgspec.structs import replace

from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import keyvalue
from ostiaryd.secrets.flows.keyvalue import SCHEDULED
from ostiaryd.secrets.flows.seal import read_status
from ostiaryd.secrets.model import aws
from ostiaryd.secrets.model.keyvalue import Secret

DUE_AT_ONCE = 100


def schedule_deletion(act: Act, path: str, secret: Secret, *, due_at: int) -> None:
    """Schedule the deletion of a secret of the mount `secret` with all its versions at `due_at` (microseconds); until
    then, the current version counts as deleted.
    """
    registry.fill_entry(act, object=f"{SCHEDULED}/{path}", due_at=due_at)
    keyvalue.set_metadata(act, SCHEDULED, path, replace(secret, custom={**secret.custom, aws.DELETION: str(due_at)}))
    keyvalue.delete_versions(act, SCHEDULED, path)
    store.deletions.put(act.tx, path, due_at=due_at)


def cancel_deletion(act: Act, path: str, secret: Secret) -> None:
    """Cancel the scheduled deletion of a secret of the mount `secret`, and restore its current version."""
    keyvalue.restore_versions(act, SCHEDULED, path, [secret.current_version])
    store.deletions.delete(act.tx, path)


async def delete_due(world: World) -> None:
    """Delete the secrets whose scheduled deletion is due; none while the secrets are sealed. A secret that is not
    scheduled any more stays: it was restored, or has a new value.
    """
    if (await world.db.scan(read_status)).is_sealed:
        return
    now = world.now()
    for path, due_at in (await world.db.scan(partial(_find_due, now=now))).items():
        if due_at is None:
            await world.writer.submit(partial(_forget_schedule, path=path))
        elif due_at > now:
            await world.writer.submit(partial(store.deletions.put, path=path, due_at=due_at))
        else:
            await act(world, "vault.delete", partial(_delete_due, path=path))


def _find_due(reader: Reader, *, now: int) -> dict[str, int | None]:
    """Return the paths of the secrets whose entry is due, each with the time at which the secret will be deleted; None:
    the secret is not scheduled any more.
    """
    return {path: _due_at(reader, path) for path in store.deletions.due(reader, now=now, limit=DUE_AT_ONCE)}


def _due_at(reader: Reader, path: str) -> int | None:
    secret = store.keyvalue.get(reader, SCHEDULED, path)
    return None if secret is None else aws.deletion_time(secret.custom)


def _forget_schedule(tx: Tx, path: str) -> None:
    """Remove the entry of a secret unless the secret was scheduled again meanwhile."""
    if _due_at(tx, path) is None:
        store.deletions.delete(tx, path)


def _delete_due(act: Act, path: str) -> None:
    """Delete a secret unless it was restored meanwhile."""
    registry.fill_entry(act, object=f"{SCHEDULED}/{path}", operation="scheduled")
    due_at = _due_at(act.tx, path)
    if due_at is not None and due_at <= act.now:
        keyvalue.delete_secret(act, SCHEDULED, path)
