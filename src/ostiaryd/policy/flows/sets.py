"""Policy sets: put, activate, look up. What was compiled is remembered by its hash, so it can never be stale."""

from __future__ import annotations

from ostiary.core.access import Policies
from ostiary.core.errors import NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import store
from ostiaryd.policy.flows.whatif import Gate, check_gate
from ostiaryd.policy.model import Loaded, PolicyDelta, PolicySet, Ready, restore, starter
from ostiaryd.registry.flows import note, tell
from ostiaryd.registry.model import Caller

BY_US = "ostiary"
REMEMBERED = 8
_compiled: dict[str, Ready] = {}


def put(act: Act, loaded: Loaded, *, by: Caller | None, gate: Gate | None = None) -> PolicySet:
    """Keep a set that `load` accepted, and let it decide from this act on; the one before stays on the shelf.

    Raises Invalid, Conflict where the gate does not let it pass.
    """
    note(act, object=loaded.hash, policies=loaded.count, tests=loaded.tests, before=store.active(act.tx))
    if gate is not None:
        check_gate(act, gate, hash=loaded.hash, by=by)
    store.insert(act.tx, loaded, by=BY_US if by is None else by.id)
    _remember(loaded.ready)
    _switch(act, loaded.hash)
    return find_set(act.tx, loaded.hash)


def activate(act: Act, hash: str) -> PolicySet:
    """Go back, or forward, to a set on the shelf. Raises NotFound."""
    found = find_set(act.tx, hash)
    note(act, object=hash, before=store.active(act.tx))
    if store.get(act.tx, hash) is None:  # the starter set, for the first time
        store.insert(act.tx, starter(), by=BY_US)
    _switch(act, hash)
    return found


def watch(act: Act, loaded: Loaded, *, by: Caller | None) -> PolicySet:
    """Keep a set and let it watch, in the place of any other: it decides beside the active one, enforcing nothing."""
    note(act, object=loaded.hash, policies=loaded.count, tests=loaded.tests, before=store.watched(act.tx))
    store.insert(act.tx, loaded, by=BY_US if by is None else by.id)
    _remember(loaded.ready)
    store.watch(act.tx, loaded.hash)
    return find_set(act.tx, loaded.hash)


def stop_watching(act: Act) -> str:
    """No set watches from now on; the hash of the one that did. Raises NotFound."""
    hash = store.watched(act.tx)
    if hash is None:
        raise NotFound("no policy set is watching", hint="ostiary policy put DIR --watch")
    note(act, object=hash)
    store.unwatch(act.tx)
    return hash


def _switch(act: Act, hash: str) -> None:
    store.activate(act.tx, hash)
    if store.watched(act.tx) == hash:  # it has seen what it was to see
        store.unwatch(act.tx)
    tell(act, PolicyDelta(hash))


def active_policies(reader: Reader) -> Policies:
    """The policies that decide."""
    return active_set(reader).policies


def active_set(reader: Reader) -> Ready:
    """The set that decides, ready to."""
    return ready(reader, store.active(reader))


def ready(reader: Reader, hash: str) -> Ready:
    """A set on the shelf, ready to decide; compiling it takes up to a second the first time. Raises NotFound."""
    found = _compiled.get(hash)
    if found is not None:
        return found
    rules = store.rules(reader, find_set(reader, hash).hash)
    return _remember(starter().ready if rules is None else restore(hash, *rules))


def _remember(made: Ready) -> Ready:
    while len(_compiled) >= REMEMBERED:
        _compiled.pop(next(iter(_compiled)), None)
    _compiled[made.policies.hash] = made
    return made


def find_set(reader: Reader, hash: str) -> PolicySet:
    """A set on the shelf, the starter set included. Raises NotFound."""
    found = store.get(reader, hash)
    if found is None and hash == starter().hash:
        found = _starter_summary()
    if found is None:
        raise NotFound(f"there is no policy set {hash[:64]!a}", hint="`ostiary policy list` shows all")
    return found


def list_sets(reader: Reader, *, after: str, limit: int) -> list[PolicySet]:
    """The newest first, the starter set last. `after` is a hash; raises NotFound."""
    behind = find_set(reader, after) if after else None
    if behind is not None and behind.created_at == 0:
        return []
    found = store.page(reader, after=behind, limit=limit)
    if len(found) < limit and store.get(reader, starter().hash) is None:
        found.append(_starter_summary())
    return found


def show_set(reader: Reader, hash: str) -> tuple[PolicySet, dict[str, str]]:
    """A set with its files. Raises NotFound."""
    return find_set(reader, hash), store.files(reader, hash) or starter().files


def _starter_summary() -> PolicySet:
    loaded = starter()
    return PolicySet(
        hash=loaded.hash, policies=len(loaded.ir.policies), tests=loaded.tests, created_at=0, created_by=BY_US
    )
