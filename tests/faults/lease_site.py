"""A server with leases under a wall clock that the test sets, and the leases that it knows."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S, eventually
from harness.prepared import PreparedServer
from tests.faults.shifted import set_clock, shift

PERMIT_ALL = '@id("all") permit (principal is Agent, action, resource is Secret);'


class Site:
    """A server that is killed, under a wall clock that the test sets."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder / "server"
        self.clock = folder / "clock"
        set_clock(self.clock, 0)
        self.server = PreparedServer(self.folder, *options, prepare=partial(shift, self.clock))
        self.live_server = ServerFixture(self.server, folder)

    def pass_time(self, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        """Set the clocks of the server and of this process forward."""
        until = time.time() + seconds
        set_clock(self.clock, seconds)
        health = f"{self.server.url}/v1/sys/health"
        eventually(lambda: requests.get(health, timeout=PATIENCE_S).json()["server_time_utc"] >= until)
        for name in ("time", "time_ns"):
            monkeypatch.setattr(time, name, getattr(time, name))  # restored at the end of the test
        shift(self.clock)

    def close(self) -> None:
        self.live_server.admin.close()
        self.server.close()

    def leases(self) -> dict[str, dict[str, Any]]:
        """The leases that the server knows, by their ids."""
        found: list[dict[str, Any]] = []
        after: str | None = ""
        while after is not None:
            page = self.live_server.api("GET", "/leases", limit=1000, after=after)
            found, after = found + page["leases"], page["next"]
        return {lease["lease_id"]: lease for lease in found}


def accounts_of(leases: dict[str, dict[str, Any]]) -> set[str]:
    """The names of the accounts of leases."""
    return {lease["username"] for lease in leases.values()}
