"""Deletions of secrets that the API of AWS Secrets Manager has scheduled: a secret can be restored until its time."""

from __future__ import annotations

from functools import partial

from msgspec.structs import replace

from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets.flows import keyvalue
from ostiaryd.secrets.flows.seal import read_status
from ostiaryd.secrets.model import aws
from ostiaryd.secrets.model.keyvalue import Secret
from ostiaryd.secrets.store import deletions as store
from ostiaryd.secrets.store import keyvalue as keyvalue_store

MOUNT = "secret"
DUE_AT_ONCE = 100


def schedule_deletion(act: Act, path: str, secret: Secret, *, due_at: int) -> None:
    """Schedule the deletion of a secret with all its versions; until then, the current version counts as deleted."""
    keyvalue.set_metadata(act, MOUNT, path, replace(secret, custom={**secret.custom, aws.DELETION: str(due_at)}))
    keyvalue.delete_versions(act, MOUNT, path)
    store.put(act.tx, path, due_at=due_at)


def cancel_deletion(act: Act, path: str, secret: Secret) -> None:
    """Restore a secret that is scheduled for deletion."""
    custom = {key: value for key, value in secret.custom.items() if key != aws.DELETION}
    keyvalue.set_metadata(act, MOUNT, path, replace(secret, custom=custom))
    keyvalue.restore_versions(act, MOUNT, path, [secret.current_version])
    store.delete(act.tx, path)


def delete_now(act: Act, path: str) -> None:
    """Delete a secret with all its versions. An unknown secret is ignored."""
    keyvalue.delete_secret(act, MOUNT, path)
    store.delete(act.tx, path)


async def delete_due(world: World) -> None:
    """Delete the secrets whose scheduled time has come. A secret that another API has restored stays."""
    if read_status(world.db.read()).is_sealed:
        return
    for path in store.due(world.db.read(), now=world.now(), limit=DUE_AT_ONCE):
        secret = keyvalue_store.get(world.db.read(), MOUNT, path)
        due_at = None if secret is None else aws.deletion_time(secret.custom)
        if due_at is not None and due_at <= world.now():
            await act(world, "vault.delete", partial(_delete_due, path=path))
        elif due_at is not None:
            await world.writer.submit(partial(store.put, path=path, due_at=due_at))
        else:
            await world.writer.submit(partial(store.delete, path=path))


def _delete_due(act: Act, path: str) -> None:
    """Delete a secret unless it was restored meanwhile."""
    registry.note(act, object=f"{MOUNT}/{path}", operation="scheduled")
    secret = keyvalue_store.get(act.tx, MOUNT, path)
    due_at = None if secret is None else aws.deletion_time(secret.custom)
    if due_at is not None and due_at <= act.now:
        delete_now(act, path)
