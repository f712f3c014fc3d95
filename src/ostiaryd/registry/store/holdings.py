"""The table of holdings. Other packages insert holdings; the functions here also end them."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import chain

from ostiaryd.ground.database import Read, Reader, Row, Tx, sql
from ostiaryd.registry.model import AgentId, Holding, Root
from ostiaryd.registry.model.holding import Ended

_COLUMNS = "id, kind, agent, task, parent, jkt, client_jkt, audience, expires_at, ended_at, ended_why, ath"
_GET = sql(f"select {_COLUMNS} from holding where id = :id", lasting=True, keys="id")
_INSERT = sql(
    """insert into holding (id, kind, agent, task, parent, jkt, client_jkt, audience, expires_at, ath)
       values (:id, :kind, :agent, :task, :parent, :jkt, :client_jkt, :audience, :expires_at, :ath)""",
    keys="id",
)
_PRUNE = sql(
    "delete from holding where id in (select id from holding where expires_at < :before limit :limit)", prunes=True
)
# Most tokens are bound to the key of their client and belong to its standing task. The indexes leave out these columns
# for such tokens, because index entries are the largest part of the cost of issuing a token. For guards (rs_), the
# indexes include them, because the keys of guards are found in no other place.
_OTHER_KEY = "(jkt is null or jkt <> client_jkt)"
_OTHER_CLIENT = "(client_jkt is null or jkt <> client_jkt or agent >= 'rs_')"
_DECLARED = "task <> 'tk_' || substr(agent, 4)"
_AGENT_OF_ROOT = "'ag_' || substr(cast(:root as text), 4)"


_FOR_GUARDS = ", ".join(Ended._fields)


def _end(*seeds: str, tasks: str = "", returning: str = _FOR_GUARDS) -> str:
    """Return the statement that ends every live holding that the conditions `seeds` and the query `tasks` select, of
    any agent.
    """
    return f"""update holding set ended_at = :now, ended_why = :why where id in ({_under(*seeds, tasks=tasks)})
        returning {returning}"""


def _under(*seeds: str, tasks: str = "") -> str:
    """Return the query of the live holdings that the conditions `seeds` select, and of those under the tasks that
    `tasks` selects.
    """
    live = "ended_at is null and expires_at > :now"
    under = [f"select id from holding where {seed} and {live}" for seed in seeds]
    if tasks:
        under.append(
            f"select id from ({tasks}) as above cross join holding where task = task_id and {_DECLARED} and {live}"
        )
    return " union ".join(under)


def _tree(tops: str) -> str:
    """Return the query of these tasks and all tasks below them that are live, or were ended in this act with their
    parent.
    """
    return f"""with recursive tree (task_id) as (
            {tops}
            union all select task.task_id from tree cross join task where task.parent = tree.task_id
            and (task.ended_at is null or task.ended_at = :now))
        select task_id from tree"""


def _of_root(column: str) -> str:
    return f"(select {column} from holding where id = :root)"


_TASKS_OF_AGENT = _tree(
    """select task_id from task where agent = :root and state = 'live'
    union select 'tk_' || substr(cast(:root as text), 4)"""
)
_END = {
    Root.HOLDING: sql(_end("id = :root")),
    Root.CERTIFICATE: sql(
        _end(
            "id = :root",
            f"agent = {_of_root('agent')} and client_jkt = {_of_root('jkt')} and kind <> 'certificate'",
            f"jkt = {_of_root('ath')} and {_OTHER_CLIENT}",
            f"client_jkt = {_of_root('ath')} and {_OTHER_KEY} and kind <> 'certificate'",
        )
    ),
    Root.AGENT: sql(_end("agent = :root", tasks=_TASKS_OF_AGENT)),
    # The tasks below the task were ended in this act. A search by the time of their end is faster than a search through
    # the tree. Their tokens contain the task, and guards are notified of the task.
    Root.TASK: sql(
        _end(
            f"agent = {_AGENT_OF_ROOT} and task = :root",
            tasks="select cast(:root as text) as task_id union select task_id from task where ended_at = :now",
            returning="kind",
        )
    ),
    Root.KEY: sql(
        _end(
            "agent = (select agent from agent_key where jkt = :root) and jkt = :root",
            f"jkt = :root and {_OTHER_CLIENT}",
            f"client_jkt = :root and {_OTHER_KEY}",
        )
    ),
    Root.OWNER: sql(
        _end(
            "agent in (select agent_id from agent where owner = :root)",
            "agent = :root",
            tasks=_tree(
                """select task_id from agent join task on agent = agent_id where owner = :root and task.state = 'live'
                union select 'tk_' || substr(agent_id, 4) from agent where owner = :root"""
            ),
        )
    ),
}

_END_ALL = sql("update holding set ended_at = :now, ended_why = :why where ended_at is null and expires_at > :now")
_END_BELOW = sql(
    f"""with recursive doomed (id) as (
            select child.id from holding gone cross join holding child
            where gone.ended_at = :now and child.parent = gone.id and child.ended_at is null and child.expires_at > :now
            union select child.id from doomed join holding child on child.parent = doomed.id
            where child.ended_at is null and child.expires_at > :now)
        update holding set ended_at = :now, ended_why = :why where id in (select id from doomed)
        returning {_FOR_GUARDS}"""
)
"""Statement that ends the holdings below the holdings that this act has ended. A holding below an expired one need not
be searched, because no holding ends later than its parent.
"""
_MOVE = sql(
    """update holding set parent = :above where parent = :parent and kind = :kind and ended_at is null
        and expires_at > :now returning id"""
)
_COUNT_OF_AGENT = sql(
    f"""with recursive doomed (id) as (
            {_under("agent = :root", tasks=_TASKS_OF_AGENT)}
            union select child.id from doomed cross join holding child
            where child.parent = doomed.id and child.ended_at is null and child.expires_at > :now)
        select kind, count(*) from doomed cross join holding where holding.id = doomed.id group by kind"""
)


_LIVE_OF_AGENT = sql(
    f"""select {_COLUMNS} from holding where agent = :agent and ended_at is null and expires_at > :now
        and (expires_at, id) < (:at, :before) order by expires_at desc, id desc limit :limit"""
)


def insert_holding(tx: Tx, holding: Holding) -> None:
    """Store a new holding (such as a token). Only `end` and `end_all_holdings` end a holding before it expires."""
    tx.late(
        _INSERT,
        (
            holding.id,
            holding.kind,
            holding.agent,
            holding.task,
            holding.parent,
            holding.jkt,
            holding.client_jkt,
            holding.audience,
            holding.expires_at,
            holding.ath,
        ),
    )


def end_all_holdings(tx: Tx, *, why: str) -> int:
    """End every live holding, and return their number. Guards are not notified of each holding."""
    return tx.run(_END_ALL, now=tx.now, why=why)


def read_of(id: str) -> Read:
    """Return the read that `get_holding` makes."""
    return Read(_GET, {"id": id}, _holding)


def get_holding(reader: Reader, id: str) -> Holding | None:
    """Return a holding by its id; None if there is none."""
    return reader.one_as(_GET, _holding, id=id)


def end(tx: Tx, root: Root, value: str, *, why: str) -> tuple[Counter[str], list[Ended]]:
    """End the live holdings under a root (`value` is the id of the object whose kind `root` states), with all
    descendants. Return the number of ended holdings by kind, and the holdings that guards may still accept after they
    are notified of the end of the root. `why`: the stored reason.
    """
    first, further = tx.each(
        Read(_END[root], {"root": value, "why": why, "now": tx.now}), Read(_END_BELOW, {"why": why, "now": tx.now})
    )
    below = [Ended._make(row) for row in further]
    if root is Root.TASK:
        return Counter(chain((kind for (kind,) in first), (one.kind for one in below))), below
    ended = [*map(Ended._make, first), *below]
    if root in (Root.HOLDING, Root.CERTIFICATE):  # the others end with a root of which guards are notified
        for one in ended:
            tx.touch("holding", one.id)
    return Counter(one.kind for one in ended), ended


def move(tx: Tx, parent: str, kind: str, *, above: str | None) -> None:
    """Change the parent of the live holdings of a kind from `parent` to `above` (None: no parent)."""
    for (id,) in tx.all(_MOVE, parent=parent, kind=kind, above=above, now=tx.now):
        tx.touch("holding", id)


def count_of_agent(reader: Reader, agent: AgentId, *, now: int) -> dict[str, int]:
    """Return the number of live holdings that a stop of the agent would end, by kind."""
    return {str(kind): int(number) for kind, number in reader.all(_COUNT_OF_AGENT, root=agent, now=now)}


def live_of_agent(reader: Reader, agent: AgentId, *, now: int, at: int, before: str, limit: int) -> list[Holding]:
    """Return live holdings of an agent, those with the latest end first: at most `limit`, after the position given by
    the end `at` (microseconds) and the id `before`.
    """
    return [
        _holding(row) for row in reader.all(_LIVE_OF_AGENT, agent=agent, now=now, at=at, before=before, limit=limit)
    ]


def prune(tx: Tx, *, before: int, limit: int) -> int:
    """Delete at most `limit` holdings that expired before `before` (microseconds); return their number."""
    return tx.run(_PRUNE, before=before, limit=limit)


@lru_cache(maxsize=4096)
def _holding(row: Row) -> Holding:
    id, kind, agent, task, parent, jkt, client_jkt, audience, expires_at, ended_at, ended_why, ath = row
    return Holding(
        id=id,
        kind=kind,
        agent=agent,
        task=task,
        parent=parent,
        jkt=jkt,
        client_jkt=client_jkt,
        audience=audience,
        expires_at=expires_at,
        ended_at=ended_at,
        ended_why=ended_why,
        ath=ath,
    )
