"""Guards with longer time limits, for tests that do not test these limits. A guard denies if the server does not answer
for seconds. On a machine that stalls, a test of something else would then fail.
"""

from __future__ import annotations

import sys

import pytest

from ostiary.guard import Guard

PATIENT_S = 60.0
LIMITS = ("ASK_S", "DRAW_S", "PERSON_S")
"""Seconds that a call waits for the server: each module of the guard has its own name of a limit."""


@pytest.fixture(autouse=True)
def patient_guards(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the limits that a test does not state itself; a test with the mark `impatient` keeps them."""
    if request.node.get_closest_marker("impatient"):
        return
    for name, module in sys.modules.copy().items():
        if name.startswith("ostiary.guard."):
            for limit in LIMITS:
                if hasattr(module, limit):
                    monkeypatch.setattr(module, limit, PATIENT_S)
    for method, limits in ((Guard.__init__, ("max_age", "max_skew")), (Guard.start, ("wait",))):
        assert method.__kwdefaults__ is not None
        for limit in limits:
            monkeypatch.setitem(method.__kwdefaults__, limit, PATIENT_S)
