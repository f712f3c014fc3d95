"""Comparison of the database's state with the ledger: each guarded row must match the newest entry that names the row.

`StateCheck` reads the ledger once, and hashes each entry up to the signed checkpoint; later steps read only new
entries. The check compares all rows page by page, and then begins again. A difference stops the agent of the row, with
an incident that waits for a person; a difference in a row that concerns several agents stops everything. The check
never repairs a row (docs/adr/0041-state-against-the-ledger.md).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ostiary.protocol.checkpoint import open_checkpoint
from ostiary.protocol.errors import Conflict, NotFound, Refused
from ostiary.protocol.merkle import Frontier, leaf_hash
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ground.database.guarded import AGENT_KINDS, GONE, GUARDED, digests, expiry, has_ended, page
from ostiaryd.ground.world import World
from ostiaryd.incidents.flows.acting import act_with_entry
from ostiaryd.incidents.flows.incidents import isolate
from ostiaryd.incidents.model.state import LEDGER, Difference
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import decode_entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentDelta, AgentId, AgentState, Root, is_agent_id, is_resource_id

log = logging.getLogger("ostiary")
ENTRIES, ROWS = 2000, 1000
"""Maximum number of entries, and of rows, that one step reads."""
REMEMBERED = 2 * 3600 * 1_000_000
"""Microseconds for which the check remembers that a row ended: longer than the life of any token."""
START_STEPS = 20
"""Maximum number of steps before the server answers, about a second of work; further steps run in the background."""
BASELINE_ROWS = 1000
LAST_EPOCH = 2**53 - 1
"""The epoch in the message about a deleted agent, above any epoch of an agent, since guards ignore a lower epoch."""
_KINDS = tuple(kind for kind, spec in GUARDED.items() if spec.is_listed)
_SOURCE = "state against ledger"


@dataclass(slots=True)
class StateCheck:
    """The comparison of guarded rows (such as those of agents and keys) with the ledger: its progress, and its result.
    Each step reads one snapshot of the database.
    """

    keys: Keyring
    position: int = 0
    """number of ledger entries that were read"""
    size: int = 0
    """number of ledger entries when the last step began"""
    has_baseline: bool = False
    """True after the baseline entry: from then on, a row that no entry names is a difference"""
    cycles: int = 0
    """number of complete comparisons of all rows; one comparison is a cycle"""
    differences: dict[str, Difference] = field(default_factory=dict)
    unnamed: list[str] = field(default_factory=list)
    """names of rows that no entry names, as of the last cycle; filled only before the baseline entry"""
    reported: set[Difference] = field(default_factory=set)
    _frontier: Frontier = field(default_factory=Frontier)
    _newest: dict[str, str] = field(default_factory=dict)
    _ended: dict[str, int] = field(default_factory=dict)
    _is_reread: bool = False
    """True while the ledger is read a second time, because the entries of the first reading did not match the signed
    checkpoint
    """
    _kind: int = 0
    """position in the cycle: the number of the kind of rows; `_after` is the key of the last compared row"""
    _after: str = ""
    _compared: dict[str, Difference | None] = field(default_factory=dict)

    def step(self, reader: Reader, *, now: int) -> None:
        """Compare further: read the new entries of the ledger; if there are none, compare the next page of rows.

        After a failover, another copy of the database can answer. The entries read from the earlier copy then do not
        match the signed checkpoint. The ledger is therefore read a second time from its first entry, and only a second
        mismatch is a difference.
        """
        frontier, note = ledger.get_head(reader)
        self.size = frontier.size
        if self.size < self.position:
            self._restart()
        for body in ledger.list_entry_bodies(reader, self.position, ENTRIES):
            self._read(body)
        if self.position < self.size:
            return
        if note and not self._is_signed(reader, note):
            if self._is_reread:
                self.differences[LEDGER] = Difference(LEDGER, None, GONE)
            else:
                self._restart()
                self._is_reread = True
            return
        self._is_reread = False
        self._compare(reader, now=now)

    @property
    def is_behind(self) -> bool:
        """Return whether the first comparison of all rows is still incomplete."""
        return self.cycles == 0

    def _read(self, body: bytes) -> None:
        self._frontier.extend([leaf_hash(body)])
        self.position += 1
        if b'"rows":' not in body and b'"state.baseline"' not in body:
            return
        entry = decode_entry(body)
        for name, digest in entry.rows.items():
            if digest == GONE:
                self._newest.pop(name, None)
            else:
                self._newest[name] = digest
                if has_ended(digest):
                    self._ended[name] = entry.at
        if entry.action == "state.baseline" and entry.outcome == "ok" and (entry.detail or {}).get("complete"):
            self.has_baseline = True

    def _is_signed(self, reader: Reader, note: str) -> bool:
        """Return whether the entries that were read have the size and root hash of the signed checkpoint `note`."""
        key = ledger.get_log_key(reader, self.keys)
        try:
            checkpoint = open_checkpoint(note.encode(), [key], origin=key.name)
        except Refused:
            return False
        return (self._frontier.size, self._frontier.root()) == (checkpoint.size, checkpoint.root)

    def _restart(self) -> None:
        self.position, self.has_baseline, self.cycles = 0, False, 0
        self._frontier, self._newest, self._ended = Frontier(), {}, {}
        self._kind, self._after, self._compared = 0, "", {}

    def _compare(self, reader: Reader, *, now: int) -> None:
        left = ROWS
        while left > 0 and self._kind < len(_KINDS):
            rows, self._after = page(reader, _KINDS[self._kind], after=self._after, limit=left)
            for name, digest, agent in rows:
                self._compared[name] = self._difference(name, digest, agent)
            if len(rows) < left:
                self._kind, self._after = self._kind + 1, ""
            left -= len(rows)
        if self._kind == len(_KINDS):
            self._end_cycle(reader, now=now)

    def _difference(self, name: str, digest: str, agent: str) -> Difference | None:
        expected = self._newest.get(name)
        if expected == digest or (expected is None and has_ended(digest)):
            return None
        return Difference(name, expected, digest, agent)

    def _end_cycle(self, reader: Reader, *, now: int) -> None:
        """Look for rows that an entry names and the database lacks, store the result of the cycle, and begin the next
        cycle. A missing row is no difference if the row ended more than `REMEMBERED` microseconds ago.
        """
        for name in [name for name, at in self._ended.items() if at < now - REMEMBERED]:
            if has_ended(self._newest.get(name, "")):
                del self._newest[name]
            del self._ended[name]
        differences = [one for one in self._compared.values() if one is not None]
        missing = [name for name in self._newest if name not in self._compared and name.partition(" ")[0] in GUARDED]
        for name, digest in digests(reader, missing).items():
            kind = name.partition(" ")[0]
            may_be_gone = not GUARDED[kind].is_listed and expiry(self._newest[name]) <= now
            if digest != self._newest[name] and not (digest == GONE and may_be_gone):
                differences.append(Difference(name, self._newest[name], digest, _agent_of(reader, name)))
        self.unnamed = [one.name for one in differences if one.expected is None and not self.has_baseline]
        self.differences = {one.name: one for one in differences if one.expected is not None or self.has_baseline}
        self._kind, self._after, self._compared, self.cycles = 0, "", {}, self.cycles + 1


def state_check(world: World) -> StateCheck:
    """Return a new comparison of the state with the ledger. The server keeps one, with its progress
    (`World.get_singleton`).
    """
    return StateCheck(world.keys)


async def check_state(world: World) -> None:
    """Take one step of the comparison of rows with the ledger, write the baseline entry after the first cycle, and stop
    the subjects of new differences. A background loop calls this function.
    """
    check = world.get_singleton(state_check)
    await world.db.scan(lambda reader: check.step(reader, now=world.now()))
    if check.cycles and not check.has_baseline:
        await _write_baseline(world, check.unnamed)
        check.unnamed = []
    await _report(world, check)


async def check_at_start(world: World) -> None:
    """Compare rows with the ledger before the server answers, at most `START_STEPS` steps.

    A refusal, for example in recovery or on a full disk, does not prevent the start: the background loop tries again.
    """
    check = world.get_singleton(state_check)
    try:
        for _ in range(START_STEPS):
            if check.is_behind and not check.differences:
                await check_state(world)
    except Refused as refusal:
        log.error("the comparison of the state with the ledger is not complete yet: %s", refusal.message)


async def check_deeply(world: World) -> str:
    """Compare all rows with the whole ledger from the first entry on, and stop the subjects of new differences; return
    a sentence about the result. Raises Conflict if there is a difference.
    """
    check = StateCheck(world.keys, reported=world.get_singleton(state_check).reported)
    while check.is_behind and not check.differences:
        await world.db.scan(lambda reader: check.step(reader, now=world.now()))
    await _report(world, check)
    return describe(check)


async def describe_state(world: World) -> str:
    """Return a sentence about the comparison of rows with the ledger in the background. Raises Conflict if there is a
    difference.
    """
    return describe(world.get_singleton(state_check))


def describe(check: StateCheck) -> str:
    """Return a sentence about the result of a comparison of rows with the ledger. Raises Conflict if there is a
    difference.
    """
    if check.differences:
        shown = "; ".join(str(one) for one in list(check.differences.values())[:3])
        more = f" and {len(check.differences) - 3} more" if len(check.differences) > 3 else ""
        raise Conflict(f"{shown}{more}", hint="find out who changed the database; see `ostiary incident list`")
    if check.is_behind:
        return f"the comparison has read {check.position} of {check.size} entries so far"
    return f"every guarded row matches the newest entry that names the row ({check.position} entries)"


async def _write_baseline(world: World, names: list[str]) -> None:
    """Write baseline entries that name these rows, which are older than the check. From then on, a row that no entry
    names is a difference.
    """

    def baseline(act: Act, chunk: list[str], *, is_last: bool) -> None:
        for name in chunk:
            act.tx.touch(*name.split(" ", 1))
        act.entry.detail = {"rows": len(names), "complete": is_last}

    for start in range(0, len(names) or 1, BASELINE_ROWS):
        chunk, is_last = names[start : start + BASELINE_ROWS], start + BASELINE_ROWS >= len(names)
        await ledger.act(
            world,
            "state.baseline",
            lambda act, chunk=chunk, is_last=is_last: baseline(act, chunk, is_last=is_last),  # type: ignore[misc]
        )


async def _report(world: World, check: StateCheck) -> None:
    """Stop the subjects of differences that were not reported before, with one act for each agent or kind of row."""
    fresh = [one for one in check.differences.values() if one not in check.reported]
    by_agent: dict[str, list[Difference]] = {}
    for one in fresh:
        by_agent.setdefault(one.agent if one.kind in AGENT_KINDS else one.kind, []).append(one)
    for differences in by_agent.values():
        log.critical("the state differs from the ledger: %s", "; ".join(map(str, differences[:10])))
        await ledger.act(world, "state.differs", lambda act, differences=differences: stop_for(act, differences))  # type: ignore[misc]
        check.reported.update(differences)


def stop_for(act: Act, differences: list[Difference]) -> None:
    """Stop the subject of these differences between rows and the ledger: the agent, the resources, or everything."""
    first, says = differences[0], "; ".join(map(str, differences[:3]))
    registry.fill_entry(
        act, object=first.key or first.kind, differs=[str(one) for one in differences[:20]], count=len(differences)
    )
    holder = first.agent if first.kind in AGENT_KINDS else ""
    if is_agent_id(holder):
        try:
            isolate(act, holder, says=f"the state differs from the ledger: {says}", source=_SOURCE)
        except NotFound:  # the agent's row was deleted: guards must no longer accept the agent
            registry.end_holdings(act, Root.AGENT, holder, why="the agent was deleted by hand")
            registry.queue_for_guards(act, AgentDelta(AgentId(holder), AgentState.DECOMMISSIONED, LAST_EPOCH))
    elif is_resource_id(holder) or first.kind in ("resource", "bearer_class"):
        for uri in _uris(act.tx, [holder] if holder else [one.key.partition(" ")[0] for one in differences]):
            _stop(act, "resource", uri, says=says)
    else:
        stop_everything(act, says=says)


def stop_everything(act: Act, *, says: str) -> None:
    """Stop all agents except administrators, until an administrator lifts the stop."""
    _stop(act, "everything", "", says=says)


def _stop(act: Act, target: str, value: str, *, says: str) -> None:
    """Put a stop. If as many stops are in force as the server may add, stop everything instead."""
    try:
        with act.tx.savepoint():
            act_with_entry(act, "state.stop", lambda more: registry.stop(more, target, value, why=says[:500], by=None))  # type: ignore[arg-type]
    except Conflict as refusal:
        if refusal.code == "too_many_stops":
            stop_everything(act, says=says)
        elif refusal.code != "stopped_already":
            raise


def _uris(reader: Reader, ids: Iterable[str]) -> list[str]:
    """Return the URIs of the resources with these ids. The server's own API is left out, since a stop of it could never
    be lifted.
    """
    api = f"{registry.get_public_url(reader)}/api/v1"
    rows = (registry.get_resource(reader, id) for id in ids)
    return [row.uri for row in rows if row is not None and row.uri != api]


def _agent_of(reader: Reader, name: str) -> str:
    """Return the id of the agent that a missing row belongs to, or the resource of a secret, from the row's key or from
    the newest entry that names the row and an agent; empty if the row belongs to none of them.
    """
    kind, _, key = name.partition(" ")
    if kind not in AGENT_KINDS:
        return ""
    spec = GUARDED[kind]
    if spec.agent in (parts := spec.key.split(" || ' ' || ")):
        return key.split(" ")[parts.index(spec.agent)]
    for body in _newest_bodies(reader):
        if name.encode() not in body:
            continue
        entry = decode_entry(body)
        detail = entry.detail or {}
        candidates = (detail.get("agent"), detail.get("holder"), entry.object)  # not `entry.agent`: the caller
        for candidate in map(str, candidates):
            if is_agent_id(candidate) or (kind == "secret" and is_resource_id(candidate)):
                return candidate
    return ""


def _newest_bodies(reader: Reader) -> Iterator[bytes]:
    """Yield the bodies of all entries of the ledger, the newest first."""
    for stop in range(ledger.get_head(reader)[0].size, 0, -ENTRIES):
        yield from reversed(ledger.list_entry_bodies(reader, max(0, stop - ENTRIES), min(ENTRIES, stop)))
