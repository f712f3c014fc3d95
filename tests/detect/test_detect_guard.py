"""The benchmark scores the same findings that a real guard of a real server makes in the same sessions, and records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.contain import owner
from benchmarks.contain.columns import Plan
from benchmarks.contain.doorkeeper import Doorkeeper
from benchmarks.detect.runs import runs
from harness.live_server import ServerFixture
from harness.patience import eventually
from harness.prepared import PreparedServer
from ostiary.provenance.noticing import NEW, notice
from tests.support.toys import Toy


def test_a_real_guard_reports_the_same_observations_as_the_benchmark(tmp_path: Path) -> None:
    [attacked] = [run for run in runs(Toy(), "obeyed") if run.injection is not None]
    scored = [[(one.detector, one.points) for one in notice(NEW, *call)] for call in attacked.calls]
    assert [bool(one) for one in scored] == [False, True, False], "the letter is read, the theft, the greeting"
    with PreparedServer(tmp_path / "data") as server, ServerFixture(server, tmp_path) as live_server:
        product = Doorkeeper(live_server, tmp_path, owner.reading(Toy()), without="")
        try:
            assert [row.harmed for row in Plan(Toy()).attacked(product)] == [False]
        finally:
            product.close_all()

        def reported() -> list[dict[str, Any]]:
            entries = live_server.entries(action="tool.call", limit=100)
            return entries if len(entries) >= len(attacked.calls) else []

        entries = eventually(reported)
    by_number = sorted(entries, key=lambda entry: entry["index"])
    seen = [entry["detail"].get("noticed", []) for entry in by_number]
    assert [[(one["detector"], one["points"]) for one in each] for each in seen] == scored
