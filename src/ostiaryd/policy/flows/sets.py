"""Policy sets: store, activate, look up. Compiled sets are cached by their hash, so that a cached set is never
stale.
"""

from __future__ import annotations

from collections.abc import Collection

from ostiary.decision.access import Policies
from ostiary.protocol.errors import Conflict, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import Entry
from ostiaryd.policy import store
from ostiaryd.policy.flows.whatif import Gate, check_gate
from ostiaryd.policy.model import (
    Contents,
    Loaded,
    Plan,
    PolicyDelta,
    PolicySet,
    Ready,
    plan_switch,
    restore,
    starter_files,
)
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows import fill_entry, queue_for_guards
from ostiaryd.registry.model import Caller

BY_US = "ostiary"
WEAKEN = "policy.weaken"
"""The action of the entry that names the safeguards which a switch of sets has removed."""
REMEMBERED = 8
_compiled: dict[str, Ready] = {}


def put(act: Act, loaded: Loaded, *, by: Caller | None, gate: Gate | None = None) -> PolicySet:
    """Store a policy set and activate it. `loaded`: the set as `load` accepted it; `by`: the caller, None for the
    server. The set that was active before stays stored.

    `gate`: a condition on the result of a what-if. Raises Invalid or Conflict if the condition is not met
    (`check_gate`).
    """
    fill_entry(act, object=loaded.hash, policies=loaded.count, tests=loaded.tests, before=store.active_hash(act.tx))
    if gate is not None:
        check_gate(act, gate, hash=loaded.hash, by=by)
    store.insert(act.tx, loaded, by=BY_US if by is None else by.id)
    _remember(loaded.ready)
    _switch(act, loaded.hash)
    return find_set(act.tx, loaded.hash)


def activate(act: Act, hash: str) -> PolicySet:
    """Activate a stored set, or the starter set. Raises NotFound for an unknown hash."""
    summary = find_set(act.tx, hash)
    fill_entry(act, object=hash, before=store.active_hash(act.tx))
    if store.get(act.tx, hash) is None:  # only when the starter set is activated for the first time
        store.insert(act.tx, starter_files(), by=BY_US)
    _switch(act, hash)
    return summary


def activate_starter(act: Act) -> PolicySet:
    """Activate the starter set."""
    return activate(act, starter_files().hash)


def plan_put(reader: Reader, loaded: Loaded) -> Plan:
    """Return the changes that the activation of the set `loaded` would make to the active set."""
    after = Contents(loaded.hash, loaded.files, loaded.ir, loaded.policies.remote)
    return plan_switch(_contents(reader, store.active_hash(reader)), after)


def plan_activation(reader: Reader, hash: str) -> Plan:
    """Return the changes that the activation of the stored set with this hash would make to the active set. Raises
    NotFound for an unknown hash.
    """
    return plan_switch(_contents(reader, store.active_hash(reader)), _contents(reader, find_set(reader, hash).hash))


def note_unknown_approvers(reader: Reader, loaded: Loaded) -> list[str]:
    """Return a warning, as a sentence, for each name in an `@approvers` annotation of the set that is not the name of a
    registered person or team.
    """
    return [
        f"`@approvers` of policy `{policy}` names `{name}`, which is no registered person or team"
        for policy, names in sorted(loaded.policies.approvers.items())
        for name in names
        if registry.get_owner(reader, name) is None
    ]


def _contents(reader: Reader, hash: str) -> Contents:
    rules = store.rules(reader, hash)
    files, policies = (starter_files().files, starter_files().ir) if rules is None else rules[:2]
    return Contents(hash, files, policies, ready_set(reader, hash).policies.remote)


def check_plan(act: Act, plan: Plan, *, loses: Collection[str]) -> None:
    """Check that the set against which `plan` was made is still active (otherwise Conflict, `policy_changed`), and that
    `loses` names each safeguard of the server that the switch removes (otherwise Conflict, `loses_safeguards`).

    Records in the ledger entry which safeguards the switch removes and which the new set leaves out. Removed safeguards
    also get an entry of their own.
    """
    fill_entry(act, object=act.entry.object or "", loses=plan.loses, left_out=plan.left_out)
    if store.active_hash(act.tx) != plan.against:
        raise Conflict(
            "another policy set has become active since the plan was made",
            hint="repeat the request: it is then compared with the set that is active now",
            code="policy_changed",
        )
    if unnamed := [id for id in plan.loses if id not in loses]:
        names = ", ".join(f"`{id}`" for id in unnamed)
        raise Conflict(
            f"these safeguards would no longer apply: {names}",
            hint="keep them, or confirm: `ostiary policy put DIR --yes`, or name them in `loses` of the request",
            code="loses_safeguards",
        )
    if plan.loses:
        detail = {"safeguards": plan.loses, "before": plan.against}
        entry = Entry(at=act.now, action=WEAKEN, agent=act.entry.agent, object=act.entry.object, detail=detail)
        act.further_entries.append(entry)


def watch(act: Act, loaded: Loaded, *, by: Caller | None) -> PolicySet:
    """Store a policy set and make it the watching set, in place of an earlier one. The verdicts of the watching set on
    all requests are recorded beside those of the active set, and enforce nothing.
    """
    fill_entry(act, object=loaded.hash, policies=loaded.count, tests=loaded.tests, before=store.watched(act.tx))
    store.insert(act.tx, loaded, by=BY_US if by is None else by.id)
    _remember(loaded.ready)
    store.watch(act.tx, loaded.hash)
    return find_set(act.tx, loaded.hash)


def stop_watching(act: Act) -> str:
    """Remove the watching set, whose verdicts are only recorded, and return its hash. Raises NotFound if
    there is none.
    """
    hash = store.watched(act.tx)
    if hash is None:
        raise NotFound("no policy set is watching", hint="put a set in watch mode: ostiary policy put DIR --watch")
    fill_entry(act, object=hash)
    store.unwatch(act.tx)
    return hash


def _switch(act: Act, hash: str) -> None:
    """Activate a stored set. If the starter set was active, store it first: a later version of the server has
    another starter set.
    """
    if store.get(act.tx, store.active_hash(act.tx)) is None:
        store.insert(act.tx, starter_files(), by=BY_US)
    store.activate(act.tx, hash)
    if store.watched(act.tx) == hash:  # it has seen what it was to see
        store.unwatch(act.tx)
    queue_for_guards(act, PolicyDelta(hash))


def active_policies(reader: Reader) -> Policies:
    """Return the active policies."""
    return active_set(reader).policies


def active_set(reader: Reader) -> Ready:
    """Return the active policy set, compiled and ready to decide."""
    return ready_set(reader, store.active_hash(reader))


def ready_set(reader: Reader, hash: str) -> Ready:
    """Return the stored set with this hash, ready to decide. A set that is not cached is compiled, which takes up to a
    second. Raises NotFound for an unknown hash.
    """
    compiled = _compiled.get(hash)
    if compiled is not None:
        return compiled
    rules = store.rules(reader, find_set(reader, hash).hash)
    return _remember(starter_files().ready if rules is None else restore(hash, *rules))


def _remember(made: Ready) -> Ready:
    while len(_compiled) >= REMEMBERED:
        _compiled.pop(next(iter(_compiled)), None)
    _compiled[made.policies.hash] = made
    return made


def find_set(reader: Reader, hash: str) -> PolicySet:
    """Return the summary of a stored set, or of the starter set. Raises NotFound for an unknown hash."""
    summary = store.get(reader, hash)
    if summary is None and hash == starter_files().hash:
        summary = _starter_summary()
    if summary is None:
        raise no_set(hash)
    return summary


def no_set(hash: str) -> NotFound:
    """Return the error for a policy set that does not exist."""
    return NotFound(f"there is no policy set {hash[:64]!a}", hint="`ostiary policy list` shows all")


def list_sets(reader: Reader, *, after: str, limit: int) -> list[PolicySet]:
    """Return at most `limit` policy sets that follow the set with the hash `after`: newest first, the starter set last.
    Raises NotFound for an unknown hash.
    """
    behind = find_set(reader, after) if after else None
    if behind is not None and behind.created_at == 0:
        return []
    summaries = store.page(reader, after=behind, limit=limit)
    if len(summaries) < limit and store.get(reader, starter_files().hash) is None:
        summaries.append(_starter_summary())
    return summaries


def show_set(reader: Reader, hash: str) -> tuple[PolicySet, dict[str, str]]:
    """Return a set with its files. Raises NotFound for an unknown hash."""
    return find_set(reader, hash), store.files(reader, hash) or starter_files().files


def _starter_summary() -> PolicySet:
    loaded = starter_files()
    return PolicySet(
        hash=loaded.hash,
        policies=loaded.count,
        safeguards=loaded.safeguards,
        tests=loaded.tests,
        created_at=0,
        created_by=BY_US,
    )
