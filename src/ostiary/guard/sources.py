"""Fields of the records that tasks have read, for the tasks whose calls this guard decides
(`ostiary.provenance.sources`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from msgspec.structs import replace

from ostiary.decision.report import CallRecord
from ostiary.guard.memories import Watched
from ostiary.provenance.origins import Memory
from ostiary.provenance.sources import NO_FIELDS, Fields, mark_reported, sources_of, with_output

MAX_TASKS = 64
"""maximum number of tasks; each has at most about 300 KB"""


class Sources:
    """The fields of data records (such as `customer.id` in the output of a tool) that each task has read. Thread-safe.
    If there are more than MAX_TASKS, the task that has read nothing for the longest time is deleted.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._tasks: OrderedDict[str, Fields] = OrderedDict()

    def read(self, watched: Watched, memory: Memory, output: object) -> None:
        """Store the fields of the output of a call. `memory`: the memory of the task, which already includes the
        output.
        """
        self._keep(watched.principal.claims.memory, lambda one: with_output(one, memory, watched.ready.tool, output))

    def added(self, record: CallRecord, watched: Watched, memory: Memory) -> CallRecord:
        """Return the record of a call, with `sources`: the fields of outputs that the task has read and that have the
        values of the call's arguments. Each source is added once for each task.
        """
        task, tool = watched.principal.claims.memory, watched.ready.tool
        sources = sources_of(self._tasks.get(task, NO_FIELDS), memory, tool, watched.arguments)
        if not sources:
            return record
        self._keep(task, lambda one: mark_reported(one, tool, sources))
        return replace(record, sources=list(sources))

    def _keep(self, task: str, change: Callable[[Fields], Fields]) -> None:
        with self._mutex:
            before = self._tasks.get(task, NO_FIELDS)
            if (after := change(before)) is before:
                return
            self._tasks[task] = after
            self._tasks.move_to_end(task)
            while len(self._tasks) > MAX_TASKS:
                self._tasks.popitem(last=False)
