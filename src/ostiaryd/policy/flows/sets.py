"""Policy sets: put, activate, look up. Compiled sets are cached by their hash, so the cache is never stale."""

from __future__ import annotations

from collections.abc import Collection

from ostiary.decision.access import Policies
from ostiary.protocol.errors import Conflict, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import Entry
from ostiaryd.policy import store
from ostiaryd.policy.flows.whatif import Gate, check_gate
from ostiaryd.policy.model import Contents, Loaded, Plan, PolicyDelta, PolicySet, Ready, plan_switch, restore, starter
from ostiaryd.registry.flows import note, tell
from ostiaryd.registry.model import Caller

BY_US = "ostiary"
WEAKEN = "policy.weaken"
"""The action of the entry that says which safeguards a switch of sets has removed."""
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
    summary = find_set(act.tx, hash)
    note(act, object=hash, before=store.active(act.tx))
    if store.get(act.tx, hash) is None:  # the starter set, for the first time
        store.insert(act.tx, starter(), by=BY_US)
    _switch(act, hash)
    return summary


def activate_starter(act: Act) -> PolicySet:
    """Let the starter set decide."""
    return activate(act, starter().hash)


def plan_put(reader: Reader, loaded: Loaded) -> Plan:
    """Return the changes that activating the set would make."""
    after = Contents(loaded.hash, loaded.files, loaded.ir, loaded.policies.remote)
    return plan_switch(_contents(reader, store.active(reader)), after)


def plan_activation(reader: Reader, hash: str) -> Plan:
    """Return the changes that activating a stored set would make. Raises NotFound."""
    return plan_switch(_contents(reader, store.active(reader)), _contents(reader, find_set(reader, hash).hash))


def _contents(reader: Reader, hash: str) -> Contents:
    rules = store.rules(reader, hash)
    files, policies = (starter().files, starter().ir) if rules is None else rules[:2]
    return Contents(hash, files, policies, ready(reader, hash).policies.remote)


def check_plan(act: Act, plan: Plan, *, loses: Collection[str]) -> None:
    """Check that the plan is still about the active set, and that `loses` names each safeguard that goes.

    Notes the safeguards that go and that are left out, and records their loss in an entry of its own. Raises Conflict
    (`policy_changed`, `loses_safeguards`).
    """
    note(act, object=act.entry.object or "", loses=plan.loses, left_out=plan.left_out)
    if store.active(act.tx) != plan.against:
        raise Conflict(
            "another policy set became active meanwhile", hint="plan again against it", code="policy_changed"
        )
    if unnamed := [id for id in plan.loses if id not in loses]:
        names = ", ".join(f"`{id}`" for id in unnamed)
        raise Conflict(
            f"safeguards that apply now would not apply any more: {names}",
            hint='keep them, or confirm: `ostiary policy put DIR --yes`, `"loses": [..]` in the request',
            code="loses_safeguards",
        )
    if plan.loses:
        detail = {"safeguards": plan.loses, "before": plan.against}
        entry = Entry(at=act.now, action=WEAKEN, agent=act.entry.agent, object=act.entry.object, detail=detail)
        act.further_entries.append(entry)


def watch(act: Act, loaded: Loaded, *, by: Caller | None) -> PolicySet:
    """Keep a set and let it watch, in the place of any other: it decides beside the active one, enforcing nothing."""
    note(act, object=loaded.hash, policies=loaded.count, tests=loaded.tests, before=store.watched(act.tx))
    store.insert(act.tx, loaded, by=BY_US if by is None else by.id)
    _remember(loaded.ready)
    store.watch(act.tx, loaded.hash)
    return find_set(act.tx, loaded.hash)


def stop_watching(act: Act) -> str:
    """End watching by a set; return its hash. Raises NotFound."""
    hash = store.watched(act.tx)
    if hash is None:
        raise NotFound("no policy set is watching", hint="ostiary policy put DIR --watch")
    note(act, object=hash)
    store.unwatch(act.tx)
    return hash


def _switch(act: Act, hash: str) -> None:
    """Activate a stored set. The starter set is stored where it was active: a later version has another one."""
    if store.get(act.tx, store.active(act.tx)) is None:
        store.insert(act.tx, starter(), by=BY_US)
    store.activate(act.tx, hash)
    if store.watched(act.tx) == hash:  # it has seen what it was to see
        store.unwatch(act.tx)
    tell(act, PolicyDelta(hash))


def active_policies(reader: Reader) -> Policies:
    """The policies that decide."""
    return active_set(reader).policies


def active_hash(reader: Reader) -> str:
    """The hash of the set that decides, whether or not it can run."""
    return store.active(reader)


def active_set(reader: Reader) -> Ready:
    """The set that decides, ready to."""
    return ready(reader, store.active(reader))


def ready(reader: Reader, hash: str) -> Ready:
    """A set on the shelf, ready to decide; compiling it takes up to a second the first time. Raises NotFound."""
    compiled = _compiled.get(hash)
    if compiled is not None:
        return compiled
    rules = store.rules(reader, find_set(reader, hash).hash)
    return _remember(starter().ready if rules is None else restore(hash, *rules))


def _remember(made: Ready) -> Ready:
    while len(_compiled) >= REMEMBERED:
        _compiled.pop(next(iter(_compiled)), None)
    _compiled[made.policies.hash] = made
    return made


def find_set(reader: Reader, hash: str) -> PolicySet:
    """A set on the shelf, the starter set included. Raises NotFound."""
    summary = store.get(reader, hash)
    if summary is None and hash == starter().hash:
        summary = _starter_summary()
    if summary is None:
        raise no_set(hash)
    return summary


def no_set(hash: str) -> NotFound:
    """Return the refusal for an unknown hash."""
    return NotFound(f"there is no policy set {hash[:64]!a}", hint="`ostiary policy list` shows all")


def list_sets(reader: Reader, *, after: str, limit: int) -> list[PolicySet]:
    """The newest first, the starter set last. `after` is a hash; raises NotFound."""
    behind = find_set(reader, after) if after else None
    if behind is not None and behind.created_at == 0:
        return []
    summaries = store.page(reader, after=behind, limit=limit)
    if len(summaries) < limit and store.get(reader, starter().hash) is None:
        summaries.append(_starter_summary())
    return summaries


def show_set(reader: Reader, hash: str) -> tuple[PolicySet, dict[str, str]]:
    """A set with its files. Raises NotFound."""
    return find_set(reader, hash), store.files(reader, hash) or starter().files


def _starter_summary() -> PolicySet:
    loaded = starter()
    return PolicySet(
        hash=loaded.hash,
        policies=loaded.count,
        safeguards=loaded.safeguards,
        tests=loaded.tests,
        created_at=0,
        created_by=BY_US,
    )
