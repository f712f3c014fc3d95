"""The table of planted faults fits the program as it is; `make mutants` plants them."""

from __future__ import annotations

import pytest

from tests.mutants.__main__ import ROOT, Fault, faults


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.claim)
def test_the_text_that_a_fault_replaces_is_there_once(fault: Fault) -> None:
    assert (ROOT / fault.file).read_text("utf-8").count(fault.find) == 1
    assert fault.find != fault.replace


def test_no_fault_is_listed_twice() -> None:
    planted = [(fault.file, fault.find, fault.replace) for fault in faults()]
    assert len(planted) == len(set(planted))
