"""The doctor: each line is an experiment performed now, on the running server, with its real parts.

An experiment returns what it saw, or raises `Refused` with what is wrong. It leaves nothing but the entry of the visit.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ostiary.core import jose
from ostiary.core.access import CALL
from ostiary.core.cedar.values import Uid
from ostiary.core.checkpoint import open_checkpoint
from ostiary.core.errors import Conflict, Refused
from ostiary.core.merkle import leaf_hash, tree_root
from ostiary.core.tiles import hashes_from
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http import Call, Reply, reply
from ostiaryd.ground.keyring import USES, Keyring
from ostiaryd.ground.world import World
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger import store
from ostiaryd.policy import flows as policy
from ostiaryd.policy.model import load
from ostiaryd.registry import flows as registry
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model import Spend

NEWEST = 10_000
"""Entries whose bytes are hashed again; the tree above all of them is recomputed whatever its size."""
SPARE_BYTES = 256 << 20


class Unprotected(Refused):
    """Works, and is weaker than it could be."""

    code = "unprotected"


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    state: str
    saw: str
    hint: str
    ms: float


async def doctor(call: Call) -> Reply:
    """Every experiment, in order: `{"lines": [{name, state: ok|weak|fail, saw, hint, ms}]}`."""
    world = call.world
    lines = [await _durable(world, call)]
    for name, experiment in EXPERIMENTS:
        lines.append(await world.db.scan(lambda reader, n=name, e=experiment: _perform(n, e, world, reader)))  # type: ignore[misc]
    return reply({"lines": lines, "now": world.now()})


def _perform(name: str, experiment: Callable[[World, Reader], str], world: World, reader: Reader) -> Line:
    started = time.perf_counter()
    state, hint = "ok", ""
    try:
        saw = experiment(world, reader)
    except Refused as refusal:
        state = "weak" if isinstance(refusal, Unprotected) else "fail"
        saw, hint = refusal.message, refusal.hint
    except Exception as error:  # noqa: BLE001 because a doctor reports whatever breaks
        state, saw = "fail", f"{type(error).__name__}: {error}"[:300]
    return Line(name, state, saw, hint, round((time.perf_counter() - started) * 1000, 2))


async def _durable(world: World, call: Call) -> Line:
    """An act, its entry on disk, and a proof that is refused the second time, in one."""

    def visit(act: ledger.Act) -> None:
        registry.note_caller(act, call.caller)
        probe = Spend(act.tx.random(32), act.now + 1)
        trust.spend_access(act.tx, probe)
        try:
            trust.spend_access(act.tx, probe)
        except Refused:
            return
        raise Conflict("the replay memory took the same proof twice")

    started = time.perf_counter()
    try:
        await ledger.act(world, "server.doctor", visit, request=call.request_id)
    except Refused as refusal:
        return Line("replay memory", "fail", refusal.message, refusal.hint, 0.0)
    took = round((time.perf_counter() - started) * 1000, 2)
    return Line("replay memory", "ok", "an act became durable; a proof was refused the second time", "", took)


def _root_key(world: World, _: Reader) -> str:
    if world.keys.root.source != "file":
        return f"the root key comes from the {world.keys.root.source}"
    path = world.config.folder / "root.key"
    if path.stat().st_mode & 0o077:
        raise Conflict(f"{path} can be read by others", hint=f"chmod 600 {path}")
    raise Unprotected(f"{path} lies beside what it protects", hint="give it as OSTIARY_ROOT_KEY from a secret store")


def _keys(world: World, reader: Reader) -> str:
    """Open every sealed key anew, sign with the active ones, verify with what the JWKS publishes."""
    fresh = Keyring(world.keys.root)
    fresh.load(reader)
    signed = 0
    for use, algs in USES.items():
        for alg in algs:
            key = fresh.signer(use, alg)
            token = jose.sign_jwt(key, typ="doctor+jwt", claims={"use": use})
            jose.verify_jws(token, key_for=lambda h, use=use: world.keys.find(use, str(h["kid"])), typ=("doctor+jwt",))  # type: ignore[misc]
            signed += 1
    return f"{signed} keys opened, signed and verified"


def _ledger(world: World, reader: Reader) -> str:
    """The head is signed and is what the stored hashes lead to; the newest entries hash to their leaves."""
    frontier, note = store.head(reader)
    key = store.log_key(reader, world.keys)
    checkpoint = open_checkpoint(note.encode(), [key], origin=key.name)
    rows = store.rows(reader)
    root = tree_root(frontier.size, hashes_from(rows))
    if (checkpoint.size, checkpoint.root) != (frontier.size, root):
        raise Conflict("the stored hashes do not lead to the signed checkpoint", hint="ostiary audit verify")
    start = max(0, frontier.size - NEWEST)
    for offset, body in enumerate(store.bodies(reader, start, NEWEST)):
        if leaf_hash(body) != rows(0, start + offset, 1)[0]:
            raise Conflict(f"entry {start + offset} was changed", hint="ostiary audit verify")
    return f"checkpoint of {checkpoint.size} entries verified, the newest {frontier.size - start} hashed again"


def _policy(world: World, reader: Reader) -> str:
    """The active set is what its files say, passes its own tests now, and denies whom nobody knows."""
    active = policy.active_policies(reader)
    _, files = policy.show_set(reader, active.hash)
    loaded = load(files)
    if loaded.hash != active.hash:
        raise Conflict(f"the files of policy set {active.hash} are not those it was made of", hint="ostiary policy put")
    nobody, nowhere = Uid("Agent", "ag_nobody"), Uid("Tool", "nowhere/nothing")
    if active.judge(nobody, CALL, nowhere, {}, active.actions).allowed:
        raise Conflict("the policies allow an agent that nobody knows to call a tool that is nowhere")
    return f"{loaded.tests} tests of set {active.hash[:12]} passed, a stranger was denied"


def _disk(world: World, _: Reader) -> str:
    free = shutil.disk_usage(world.config.folder).free
    if free < SPARE_BYTES:
        raise Conflict(f"{free >> 20} MiB are free", hint="make room: an act that cannot be recorded is refused")
    return f"{free >> 30} GiB are free"


EXPERIMENTS: tuple[tuple[str, Callable[[World, Reader], str]], ...] = (
    ("root key", _root_key),
    ("server keys", _keys),
    ("ledger", _ledger),
    ("policy", _policy),
    ("disk", _disk),
)

ROUTES: tuple[tuple[str, str, Any, str], ...] = (("GET", "/api/v1/doctor", doctor, "ostiary:read"),)
