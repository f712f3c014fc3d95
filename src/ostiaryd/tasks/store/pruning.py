"""Deletion of the rows of tasks that ended long ago and to which no live row refers.

The rule is in docs/adr/0046-every-table-has-a-growth-rule.md.
"""

from __future__ import annotations

from ostiaryd.ground.database import Tx, sql
from ostiaryd.tasks.model import TaskId

_PRUNABLE = sql(
    """select task_id, intent from task where ended_at < :before
           and not exists (select 1 from task as part where part.parent = task.task_id)
           and not exists (select 1 from holding where holding.task = task.task_id and holding.expires_at > :now)
           and not exists (select 1 from finding join incident on finding.incident = incident.incident_id
               where finding.task = task.task_id and (incident.closed_at is null or incident.closed_at >= :before))
       order by ended_at limit :limit"""
)
"""SQL condition: keeps a task while an incident about it is open, so that its agent cannot delete evidence."""
_WITHOUT_SLICES = """budget.holder = :task and not exists (
        select 1 from slice join account on slice.account_id = account.account_id
        where account.budget_id = budget.budget_id)
    and not exists (select 1 from budget as part where part.parent = budget.budget_id)"""
_IN_ORDER = (
    sql("delete from holder where task = :task"),
    sql("delete from elevation where task = :task"),
    sql("delete from memory where task = :task"),
    sql(
        """update budget set ended_at = (select ended_at from task where task_id = :task)
           where holder = :task and ended_at is null"""
    ),
    sql(f"delete from account where budget_id in (select budget_id from budget where {_WITHOUT_SLICES})"),
    sql(f"delete from budget where {_WITHOUT_SLICES}"),
    sql("delete from task where task_id = :task"),
)
"""Statements of the deletion, in order. If a guard still has a slice of a budget, the budget is kept, because the guard
may return units.
"""
_INTENT = sql("delete from intent where digest = :digest and not exists (select 1 from task where intent = :digest)")


def prune(tx: Tx, *, before: int, limit: int) -> list[TaskId]:
    """Delete at most `limit` tasks that ended before `before` (microseconds) and to which no stored task, no unexpired
    holding and no open or recent incident refers; return their ids.
    """
    rows = tx.all(_PRUNABLE, before=before, now=tx.now, limit=limit)
    for statement in _IN_ORDER:
        for id, _ in rows:
            tx.send(statement, task=id)
    for digest in dict.fromkeys(digest for _, digest in rows if digest is not None):
        tx.send(_INTENT, digest=digest)
    return [id for id, _ in rows]
