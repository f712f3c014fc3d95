"""The limits on docs/explanation/performance.md are the constants of the code and of the benchmarks. The measured
figures have no test: benchmarks print them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import (
    budgets,
    console,
    egress,
    http_code_flow,
    http_decisions,
    isolate,
    notice,
    overload,
    revoke,
    run,
    tree,
    watch,
    whatif,
)
from ostiary.provenance.noticing.profile import MAX_PROFILE
from ostiary.provenance.origins import MAX_BYTES
from ostiaryd.ground.config import load_config
from ostiaryd.ground.database.writer import CROWDED_PART
from ostiaryd.ground.http import arrivals, turns

PAGE = (Path(__file__).parents[2] / "docs/explanation/performance.md").read_text("utf-8")
TARGETS = {
    "sign-in": f"{http_code_flow.FLOW_TARGET:,} /s a core",
    "refresh with rotation": f"{http_code_flow.REFRESH_TARGET:,} /s a core",
    "login page": f"{http_code_flow.LOGIN_TARGET_MS} ms at p99",
    "egress proxy": f"{egress.LIMIT_MS:g} ms",
    "what-if": f"{whatif.TARGET:,} /s a core",
    "console requests": f"p99 {console.TARGET_MS:g} ms",
    "50 idle event streams": f"{console.TARGET_SHARE:g} %",
    "the same with two budgets": f"{budgets.LIMIT_US:g} µs",
    "10 KB of output": f"3 ms; {MAX_BYTES >> 10} KB",
    "examination of a call": f"{notice.LIMIT:g} µs at the median",
    "10 KB read for requests": f"none; {MAX_PROFILE} bytes",
    "`ostiary run`": f"{run.LIMIT_MS:g} ms at the median",
    "from a revoke": f"{revoke.TARGET_MS:g} ms at p99",
    "the same under four-fold overload": f"{overload.TARGET_REVOKE_MS:g} ms at p99",
    "grants admitted": f"{overload.TARGET_GRANT_S:g} s at p99",
    "from a harmful entry": f"{isolate.TARGET_MS:g} ms at p99",
    "revoke of a tree": f"{tree.TARGET_MS} ms",
    "the detectors with": f"{watch.TARGET:,} events /s a core",
    "memory of the detectors": f"{watch.MOST_BYTES >> 10} KB per agent",
}
"""The target of each row whose benchmark has it as a constant, by the beginning of the row."""


@pytest.mark.parametrize("operation", TARGETS)
def test_the_target_of_an_operation_is_that_of_its_benchmark(operation: str) -> None:
    [row] = [line for line in PAGE.splitlines() if line.startswith(f"| {operation}")]
    assert row.split(" | ")[1] == TARGETS[operation]


def test_the_limits_on_the_page_are_those_of_the_code(tmp_path: Path) -> None:
    crowded_ms = CROWDED_PART * load_config(environ={}, data_dir=str(tmp_path)).queue_wait_ms
    sentences = [
        f"if the oldest in the line is more than {crowded_ms:.0f} ms old",
        f"parses for {turns.ROUND_S * 1000:.0f} to {turns.LONGEST_ROUND_S * 1000:.0f} ms in a round",
        f"pauses other clients for up to {turns.LONGEST_PAUSE_S * 1000:.0f} ms while a stop",
        f"about {http_decisions.BOUND.most} calls of functions for each evaluation",
    ]
    text = PAGE.replace("\n", " ")
    assert [sentence for sentence in sentences if sentence not in text] == []
    assert "interrupts its work once a millisecond" in text
    assert arrivals.ASK_EVERY_S == 0.001
