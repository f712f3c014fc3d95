"""Health checks for an orchestrator: `/livez` and `/readyz`, without authentication.

Both are answered from memory, so that frequent requests of unauthenticated callers cause no work in the database. A
process is *live* while its event loop runs, and *ready* while every check passes. Packages add checks:
`world.get_singleton(Health).checks["name"] = check`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.ground.world import World

BEAT_S = 2
"""Interval of empty commits, which check the writer while no act runs, in seconds."""
STUCK_S = 15
"""Maximum time for a batch in seconds. If a batch takes longer, the writer counts as not committing."""

Check = Callable[[], str]
"""A check: returns a description of the defect, which unauthenticated callers may read; empty without a defect."""


@dataclass(slots=True)
class Health:
    """The checks of this process. Use it only on the event loop."""

    world: World
    checks: dict[str, Check] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.checks |= {
            "database": self._database,
            "writer": self._writer,
            "keys": self._keys,
            "history": self._history,
        }

    def _database(self) -> str:
        db = self.world.db
        return "not reachable" if not db.is_up else "lost or damaged" if db.loss is not None else ""

    def _writer(self) -> str:
        writer = self.world.writer
        if writer.busy_s > STUCK_S:
            return "a commit takes too long"
        return "" if writer.commits else "the last commit failed"

    def _history(self) -> str:
        return "in recovery" if self.world.pin.is_lost else ""

    def _keys(self) -> str:
        return "" if self.world.keys.is_loaded else "not loaded"


async def check_writer(world: World) -> None:
    """Commit an empty transaction, to check that the database writer works."""
    await world.writer.submit(lambda tx: None)


class LiveBody(TypedDict):
    """The answer of the liveness route: the process responds."""

    status: Literal["live"]


class ReadyBody(TypedDict):
    """The result of each check: `ok` or the defect."""

    status: Literal["ready", "not ready"]
    checks: dict[str, str]


async def livez(call: Call) -> Reply:
    """Return 200 while the event loop runs.

    If this gets no response, an orchestrator should restart the process.
    """
    return reply({"status": "live"}, headers=[NO_STORE])


async def readyz(call: Call) -> Reply:
    """Return 200 if every check passes, otherwise 503.

    An orchestrator should send no requests to a server that is not ready. `checks` contains the result of each check.
    """
    checks = {name: check() or "ok" for name, check in call.world.get_singleton(Health).checks.items()}
    is_ready = all(result == "ok" for result in checks.values())
    body = {"status": "ready" if is_ready else "not ready", "checks": checks}
    return reply(body, status=200 if is_ready else 503, headers=[NO_STORE])


ROUTES = (
    Route("GET", "/livez", livez, "", answers={200: LiveBody}),
    Route("GET", "/readyz", readyz, "", answers={200: ReadyBody, 503: ReadyBody}),
)
