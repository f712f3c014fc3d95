from __future__ import annotations

from typing import Any

from benchmarks.contain.drafts import measure
from benchmarks.contain.suites import Task, Tool
from tests.support.toys import SCHEMA, Toy


class Larger(Toy):
    """With an effect that no task needs, and a task whose words do not ask for what it needs."""

    tools: Any = (*Toy.tools, Tool("erase", "Erase all.", {"type": "object"}), Tool("send_all", "Send.", SCHEMA))
    tasks: Any = (*Toy.tasks, Task("truth-3", "What is the weather?"))


def test_the_tools_that_drafts_plan_and_leave_out_are_counted() -> None:
    assert measure(Toy()) == (2, 2, 0, 0)
    assert measure(Larger()) == (3, 2, 6, 2), "`send_all` is called for twice, `erase` never, and the third is cut"
