"""The table of the workloads of agents."""

from __future__ import annotations

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiaryd.certs.model.workload import Selectors, Workload
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.ground.http.pages import Page

_SELECT = "select workload_id, agent, selectors, created_at from workload "
_GET = sql(_SELECT + "where workload_id = :id")
_OF_AGENT = sql(_SELECT + "where agent = :agent order by workload_id")
_OF_USER = sql(_SELECT + "where uid = :uid order by workload_id")
_CANDIDATES = sql(_SELECT + "where uid = :uid or uid is null order by workload_id")
_PAGE = sql(_SELECT + "where workload_id > :after order by workload_id limit :limit")
_PAGE_OF_AGENT = sql(_SELECT + "where agent = :agent and workload_id > :after order by workload_id limit :limit")
_COUNT_WITHOUT_USER = sql("select count(*) from workload where uid is null")
_ANY = sql("select 1 from workload limit 1")
_INSERT = sql(
    """insert into workload (workload_id, agent, uid, selectors, created_at)
       values (:id, :agent, :uid, :selectors, :created_at)"""
)
_DELETE = sql("delete from workload where workload_id = :id")
_encode = msgspec.json.Encoder().encode
_decode = json_decoder(Selectors)


def get(reader: Reader, id: str) -> Workload | None:
    """Return a workload by its id; None if there is none."""
    return reader.one_as(_GET, _workload, id=id)


def of_agent(reader: Reader, agent: str) -> list[Workload]:
    """Return the workloads of an agent."""
    return [_workload(row) for row in reader.all(_OF_AGENT, agent=agent)]


def of_user(reader: Reader, uid: int) -> list[Workload]:
    """Return the workloads whose selectors name a user."""
    return [_workload(row) for row in reader.all(_OF_USER, uid=uid)]


def candidates(reader: Reader, uid: int) -> list[Workload]:
    """Return the workloads that a process of this user can match: the workloads that name the user, and the workloads
    that name no user.
    """
    return [_workload(row) for row in reader.all(_CANDIDATES, uid=uid)]


def page(reader: Reader, page: Page, *, agent: str | None = None) -> list[Workload]:
    """Return a page of all workloads, or of those of an agent."""
    if agent is None:
        rows = reader.all(_PAGE, after=page.after, limit=page.limit)
    else:
        rows = reader.all(_PAGE_OF_AGENT, agent=agent, after=page.after, limit=page.limit)
    return [_workload(row) for row in rows]


def count_without_user(reader: Reader) -> int:
    """Return the number of workloads that do not name a user."""
    row = reader.one(_COUNT_WITHOUT_USER)
    assert row is not None
    return int(row[0])


def has_any(reader: Reader) -> bool:
    """Return whether at least one workload is registered."""
    return reader.one(_ANY) is not None


def insert(tx: Tx, workload: Workload) -> None:
    """Store a new workload."""
    tx.run(
        _INSERT,
        id=workload.workload_id,
        agent=workload.agent,
        uid=workload.selectors.uid,
        selectors=_encode(workload.selectors).decode(),
        created_at=workload.created_at,
    )
    tx.touch("workload", workload.workload_id)


def delete(tx: Tx, id: str) -> None:
    """Delete a workload."""
    tx.run(_DELETE, id=id)
    tx.touch("workload", id)


def _workload(row: Row) -> Workload:
    id, agent, selectors, created_at = row
    return Workload(workload_id=id, agent=agent, selectors=_decode(selectors), created_at=created_at)
