"""Our Cedar engine decides as Cedar's own does, on generated policies and requests, for every construct there is.

`python -m benchmarks.cedar --pairs 200000` is the long run of the same.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import islice

import pytest

from harness.cedar_differential.faults import FAULTS, Fault
from harness.cedar_differential.planted import planted
from harness.cedar_differential.run import Answered, answered, run

PAIRS = 16_000


@cache
def questions() -> list[Answered]:
    """The same trials, with Cedar's answers, for every test here."""
    return list(islice(answered(seed=20_240_229), PAIRS // 80))


def test_both_engines_agree_on_decision_reasons_and_errors() -> None:
    report = run(questions(), pairs=PAIRS)
    assert report.mismatches == []
    assert report.pairs >= 5000
    assert report.complaints(at_least=60) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_in_the_cedar_engine_is_found(fault: Fault) -> None:
    with planted(fault) as engine:
        report = run(questions(), pairs=PAIRS, engine=engine, stop_at=1)
    print(f"{fault.name}: found by {Counter(found.construct for found in report.mismatches).most_common(3)}")
    assert report.mismatches


def test_the_real_engine_is_back_after_a_fault_was_planted() -> None:
    with planted(FAULTS[0]) as engine:
        assert run(questions(), pairs=PAIRS, engine=engine, stop_at=1).mismatches
    assert run(questions(), pairs=2000).mismatches == []
