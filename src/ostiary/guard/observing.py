"""The end of a call: the output is added to the memory of the task before it is returned, and the outcome is
recorded.
"""

from __future__ import annotations

import logging
from typing import Literal

from ostiary.decision import report
from ostiary.guard.budgets import BudgetCache
from ostiary.guard.call import Call
from ostiary.guard.closed import withholding
from ostiary.guard.memories import TaskMemories
from ostiary.guard.sessions import Sessions
from ostiary.guard.sources import Sources
from ostiary.guard.spool import Spool
from ostiary.protocol.errors import Refused, Unavailable

log = logging.getLogger("ostiary.guard")


def observe(call: Call, output: object, *, memories: TaskMemories, sessions: Sessions | None, sources: Sources) -> None:
    """Add the output of a call to the memory of its task. Raises Withheld if the memory cannot store the output."""
    if call.watched is None:
        return
    principal, tool = call.watched.principal, call.watched.ready.tool
    if principal.claims.memory:
        with withholding(call):
            before = memories.of(principal)
            memories.observe(call.watched, output)
            if sessions is not None:
                sessions.add_output(call.watched, before or memories.of(principal), output)
            if call.ok and (memory := memories.of(principal)) is not None:
                sources.read(call.watched, memory, output)
    if call.ok and tool.creates:
        try:
            memories.send_created(call.watched, output)
        except Unavailable as refusal:
            log.warning("the objects that call %d created are not recorded: %s", call.number, refusal.message)


def finish(call: Call, *, spool: Spool, budgets: BudgetCache, now: int) -> bool:
    """Record the outcome of a call in the spool, and give unused units back to the budgets. Return whether that
    succeeded; a failure is logged, because the tool has already run.
    """
    status: Literal["ok", "error"] = "ok" if call.ok else "error"
    ahead, call.ahead = call.ahead, {}
    unused = call.unused(ahead)
    record = report.ResultRecord(at=now, call=call.number, status=status, **call._size, unused=unused)
    try:
        if ahead:
            budgets.take_back(ahead, unused, lambda: spool.append(record, is_outcome=True))
        else:
            spool.append(record, is_outcome=True)
    except Refused as refusal:
        log.error("the outcome of call %d is not recorded: %s", call.number, refusal.message)
        return False
    return True
