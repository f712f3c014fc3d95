"""Stored approval requests and answers. Whether an approval was used is read from the holdings and from the table of
spent approvals.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from ostiary.protocol.decoding import json_decoder
from ostiary.provenance.extent import Extent
from ostiaryd.approvals.model import MAX_OPEN_OF_TASK, PLAN, About, Answer, ApprovalState, Cover, Question, Says
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.ground.http.pages import Page

_SELECT = """select approval.approval_id, approval.kind, approval.agent, approval.task, approval.digest, needs, state,
    asked, times, asked_at, last_at, ends_at, answered_at, expires_at, ended_at, spent_at, spent_for
    from approval left join approved on approved.approval_id = approval.approval_id
    left join holding on holding.id = approval.approval_id """
_GET = sql(_SELECT + "where approval.approval_id = :id")
_LATEST = sql(_SELECT + "where approval.digest = :digest order by asked_at desc, approval.approval_id desc limit 1")
_SPENT_FOR = sql(_SELECT + "where approval.digest = :digest and spent_for = :call and expires_at > :now")
_SPENT_OF_CALL = sql(
    """select count(*) from approval join approved on approved.approval_id = approval.approval_id
       join holding on holding.id = approval.approval_id
       where approval.digest = :digest and spent_at is not null and expires_at > :now"""
)
_LIST = sql(
    _SELECT
    + """where approval.approval_id < :after and (:agent = '' or approval.agent = :agent)
         and (:is_open = 0 or (state = 'open' and ends_at > :now))
         order by approval.approval_id desc limit :limit"""
)
_INSERT = sql(
    """insert into approval
           (approval_id, kind, agent, task, tool, digest, needs, state, asked, times, asked_at, last_at, ends_at)
       values (:id, :kind, :agent, :task, :tool, :digest, :needs, 'open', :asked, 1, :now, :now, :ends_at)"""
)
_AGAIN = sql("update approval set times = times + 1, last_at = :now where approval_id = :id")
_SETTLE = sql("update approval set state = :state, answered_at = :now where approval_id = :id and state = 'open'")
_REPLACE_ABOUT = sql("update approval set asked = :asked where approval_id = :id and state = 'open'")
_CANCEL_ALL = sql("update approval set state = 'cancelled', answered_at = :now where state = 'open'")
_OPEN_OF_AGENT = sql("select count(*) from approval where agent = :agent and state = 'open' and ends_at > :now")
_ALL_OPEN = sql("select count(*) from approval where state = 'open' and ends_at > :now")
_OPEN_OF_TASK = sql("select count(*) from approval where task = :task and state = 'open' and ends_at > :now")
_ASKED_SINCE = sql("select count(*) from approval where agent = :agent and asked_at > :since")
_DENIED_OF_TOOL = sql(
    """with recursive tree (id) as (
           select cast(:top as text) union all select task.task_id from tree join task on task.parent = tree.id)
       select count(*) from approval
       where agent = :agent and tool = :tool and state = 'denied' and ends_at > :after
           and task in (select id from tree)"""
)
_WAITING = sql(
    _SELECT
    + """where approval.task = :task and state = 'open' and ends_at > :now
         order by asked_at, approval.approval_id limit :limit"""
)
_CALLS_SINCE = sql(
    _SELECT
    + """where approval.agent = :agent and approval.kind = 'call' and asked_at > :since
         order by asked_at desc, approval.approval_id desc limit :limit"""
)
_DUE = sql("select approval_id from approval where state = 'open' and ends_at <= :now order by ends_at limit :limit")
_OVER = "(select approval_id from approval where ends_at < :before and state <> 'open' limit :limit)"
_FORGET = tuple(
    sql(f"delete from {table} where approval_id in {_OVER}")
    for table in ("approval_cover", "approval_answer", "submitted", "approved", "approval")
)
_INSERT_ANSWER = sql(
    """insert into approval_answer (approval_id, person, says, reason, jkt, at, covers)
       values (:id, :person, :says, :reason, :jkt, :at, :covers)"""
)
_ANSWERS = sql(
    """select person, says, reason, jkt, at, covers from approval_answer where approval_id = :id order by at, person"""
)
_INSERT_COVER = sql(
    """insert into approval_cover (approval_id, line, task, counterpart, extent, uses_left)
       values (:id, :line, :task, :counterpart, :extent, :uses)"""
)
_COVERS = sql(
    """select approval_cover.approval_id, line, extent, approval.kind
       from approval_cover join approval on approval.approval_id = approval_cover.approval_id
       where approval_cover.task = :task and counterpart = :counterpart and uses_left > 0
       order by approval_cover.approval_id, line"""
)
_USE_COVER = sql(
    "update approval_cover set uses_left = uses_left - 1 where approval_id = :id and line = :line and uses_left > 0"
)
_END_COVERS = sql("delete from approval_cover where task = :task and counterpart = :counterpart")
_SUBMITTED = sql("select approval_id, body from submitted where key = :key")
_INSERT_SUBMITTED = sql("insert into submitted (key, body, approval_id) values (:key, :body, :id)")
_LAST = "ap_~"
"""An id that sorts after the ids of all approval requests, for the first page of a list that begins with the newest."""
_decode = json_decoder(About)
_decode_extent = json_decoder(Extent)
_encode = msgspec.json.Encoder().encode


def insert(tx: Tx, question: Question) -> None:
    """Store a new approval request."""
    tx.send(
        _INSERT,
        id=question.approval_id,
        kind=question.kind,
        agent=question.agent,
        task=question.task,
        tool=question.tool,
        digest=question.digest,
        needs=question.needs,
        asked=_encode(question.about).decode(),
        now=question.asked_at,
        ends_at=question.ends_at,
    )


def get_question(reader: Reader, id: str) -> Question | None:
    """Return the approval request with this id; None if there is none."""
    row = reader.one(_GET, id=id)
    return None if row is None else _question(row)


def find_latest(reader: Reader, digest: str) -> Question | None:
    """Return the newest approval request about the call with this digest; None if there is none."""
    row = reader.one(_LATEST, digest=digest)
    return None if row is None else _question(row)


def find_spent(reader: Reader, digest: str, *, call: str, now: int) -> Question | None:
    """Return the approval request whose approval was used for the call with the digest and the random number `call`, if
    that approval has not expired at `now` (microseconds); otherwise None.
    """
    row = reader.one(_SPENT_FOR, digest=digest, call=call, now=now)
    return None if row is None else _question(row)


def count_spent(reader: Reader, digest: str, *, now: int) -> int:
    """Return the number of used approvals of the call with this digest that are not expired at `now` (microseconds)."""
    return _count(reader.one(_SPENT_OF_CALL, digest=digest, now=now))


def page(reader: Reader, *, agent: str, is_open: bool, now: int, page: Page) -> list[Question]:
    """Return a page of approval requests, the newest first: of one agent, or of all agents if `agent` is empty; with
    `is_open`, only requests that are open at `now` (microseconds).
    """
    rows = reader.all(_LIST, after=page.after or _LAST, agent=agent, is_open=int(is_open), now=now, limit=page.limit)
    return [_question(row) for row in rows]


def note_again(tx: Tx, id: str) -> None:
    """Record that the agent sent an approval request again, and when."""
    tx.send(_AGAIN, id=id, now=tx.now)


def settle(tx: Tx, id: str, state: ApprovalState) -> bool:
    """Store the new state of an approval request and the present time as the time of the answer, if the stored state is
    open. Return whether it was open.
    """
    return tx.run(_SETTLE, id=id, state=state.value, now=tx.now) == 1


def replace_about(tx: Tx, id: str, about: About) -> None:
    """Replace the content of an approval request, if the request is open."""
    tx.send(_REPLACE_ABOUT, id=id, asked=_encode(about).decode())


def cancel_all_questions(tx: Tx) -> int:
    """Cancel every open approval request; return the number of cancelled requests."""
    return tx.run(_CANCEL_ALL, now=tx.now)


def count_open(reader: Reader, *, agent: str, task: str, now: int) -> tuple[int, int]:
    """Return two numbers of approval requests that are open at `now` (microseconds): those of the agent, and those of
    the task.
    """
    return _count(reader.one(_OPEN_OF_AGENT, agent=agent, now=now)), _count(
        reader.one(_OPEN_OF_TASK, task=task, now=now)
    )


def count_open_questions(reader: Reader, *, now: int) -> int:
    """Return the number of approval requests, of all agents, that are open at `now` (microseconds)."""
    return _count(reader.one(_ALL_OPEN, now=now))


def count_since(reader: Reader, agent: str, since: int) -> int:
    """Return the number of approval requests that an agent has made since `since` (microseconds), in any state."""
    return _count(reader.one(_ASKED_SINCE, agent=agent, since=since))


def _count(row: Row | None) -> int:
    assert row is not None
    return int(row[0])


def due(reader: Reader, *, now: int, limit: int) -> list[str]:
    """Return the ids of at most `limit` approval requests whose time has passed at `now` (microseconds), but whose
    stored state is still open.
    """
    return [row[0] for row in reader.all(_DUE, now=now, limit=limit)]


def forget(tx: Tx, *, before: int, limit: int) -> int:
    """Delete at most `limit` approval requests that are not open and whose time ended before `before` (microseconds),
    with their answers and covers; return the number of deleted requests.
    """
    return [tx.run(statement, before=before, limit=limit) for statement in _FORGET][-1]


def insert_answer(tx: Tx, id: str, answer: Answer) -> None:
    """Insert an answer."""
    tx.send(
        _INSERT_ANSWER,
        id=id,
        person=answer.person,
        says=answer.says.value,
        reason=answer.reason,
        jkt=answer.jkt,
        at=answer.at,
        covers=int(answer.covers),
    )


def answers(reader: Reader, id: str) -> list[Answer]:
    """Return the answers to an approval request."""
    return [
        Answer(person=person, says=Says(says), reason=reason, jkt=jkt, at=at, covers=bool(covers))
        for person, says, reason, jkt, at, covers in reader.all(_ANSWERS, id=id)
    ]


def list_open(reader: Reader, task: str, *, now: int) -> list[Question]:
    """Return the approval requests of a task that are open at `now` (microseconds), the oldest first."""
    return [_question(row) for row in reader.all(_WAITING, task=task, now=now, limit=MAX_OPEN_OF_TASK)]


def calls_since(reader: Reader, agent: str, *, since: int, limit: int) -> list[Question]:
    """Return at most `limit` approval requests about calls that an agent made since `since` (microseconds), in any
    state, the newest first.
    """
    return [_question(row) for row in reader.all(_CALLS_SINCE, agent=agent, since=since, limit=limit)]


def count_denied(reader: Reader, agent: str, *, top: str, tool: str, after: int) -> int:
    """Return the number of denied approval requests of an agent about a tool, in the task `top` and all tasks below it,
    whose time ends after `after` (microseconds; 0 counts all).
    """
    return _count(reader.one(_DENIED_OF_TOOL, agent=agent, top=top, tool=tool, after=after))


def insert_cover(tx: Tx, id: str, line: int, *, task: str, extent: Extent, uses: int) -> None:
    """Insert a cover, which extends an approval to at most `uses` further calls of the task that have the same
    counterpart and lie within `extent`.
    """
    tx.send(
        _INSERT_COVER,
        id=id,
        line=line,
        task=task,
        counterpart=extent.counterpart,
        extent=_encode(extent).decode(),
        uses=uses,
    )


def find_covers(reader: Reader, *, task: str, counterpart: str) -> list[Cover]:
    """Return the covers (approvals of similar calls) of a task with the digest `counterpart` that have uses left."""
    return [
        Cover(approval_id=id, line=line, extent=_decode_extent(extent), is_planned=kind == PLAN)
        for id, line, extent, kind in reader.all(_COVERS, task=task, counterpart=counterpart)
    ]


def use_cover(tx: Tx, cover: Cover) -> None:
    """Reduce the number of uses that the cover has left by one."""
    tx.send(_USE_COVER, id=cover.approval_id, line=cover.line)


def end_covers(tx: Tx, *, task: str, counterpart: str) -> None:
    """Delete the covers (approvals of similar calls) of a task with the digest `counterpart`."""
    tx.send(_END_COVERS, task=task, counterpart=counterpart)


def find_submitted(reader: Reader, key: str) -> tuple[str, str] | None:
    """Return the approval request that was submitted with the idempotency key `key`, as (id, digest of the body); None
    if there is none.
    """
    row = reader.one(_SUBMITTED, key=key)
    return None if row is None else (row[0], row[1])


def insert_submitted(tx: Tx, key: str, *, body: str, id: str) -> None:
    """Store that a request with this idempotency key and this digest of its body created the approval request `id`."""
    tx.send(_INSERT_SUBMITTED, key=key, body=body, id=id)


def _read_about(text: str) -> About:
    """Return the stored content of an approval request. An earlier version stored the counterpart only in the extent,
    and not whether the extent includes other times: an approval of such a request covers no further call.
    """
    about = _decode(text)
    if about.extent is None or about.counterpart:
        return about
    return replace(about, extent=None, counterpart=about.extent.counterpart)


def _question(row: Row) -> Question:
    (
        id,
        kind,
        agent,
        task,
        digest,
        needs,
        state,
        about,
        times,
        asked_at,
        last_at,
        ends_at,
        answered_at,
        until,
        ended_at,
        spent_at,
        spent_for,
    ) = row
    return Question(
        approval_id=id,
        kind=kind,
        agent=agent,
        task=task,
        digest=digest,
        needs=needs,
        state=ApprovalState(state),
        about=_read_about(about),
        times=times,
        asked_at=asked_at,
        last_at=last_at,
        ends_at=ends_at,
        answered_at=answered_at,
        until=until,
        is_held=until is not None and ended_at is None,
        spent_at=spent_at,
        spent_for=spent_for,
    )
