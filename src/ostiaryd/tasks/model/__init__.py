"""Facts and rules of tasks. Pure: values in, values out."""

from ostiaryd.tasks.model.budget import Account, Allotment, Balance, Slice
from ostiaryd.tasks.model.nesting import check_line, put_under
from ostiaryd.tasks.model.task import (
    DEFAULT_TTL_S,
    MAX_TASK_BYTES,
    SECOND,
    Elevation,
    Holder,
    State,
    Task,
    TaskDelta,
    TaskId,
    TaskTooLarge,
    check_heartbeat,
    check_size,
    check_ttl,
    end_state,
    standing_agent,
    standing_id,
    standing_task,
)

__all__ = [
    "DEFAULT_TTL_S",
    "MAX_TASK_BYTES",
    "SECOND",
    "Account",
    "Allotment",
    "Balance",
    "Elevation",
    "Holder",
    "Slice",
    "State",
    "Task",
    "TaskDelta",
    "TaskId",
    "TaskTooLarge",
    "check_heartbeat",
    "check_line",
    "check_size",
    "check_ttl",
    "end_state",
    "put_under",
    "standing_agent",
    "standing_id",
    "standing_task",
]
