"""Budgets, what has gone out of them, and what of that lies at guards."""

from __future__ import annotations

import msgspec

from ostiary.core import canonical
from ostiary.core.budget import Budget, Limit
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.tasks.model import Account, Allotment, Slice

_SELECT = """select budget_id, holder, terms, daily, parent, ended_at from budget """
_GET = sql(_SELECT + "where budget_id = :id", steady=True)
_HELD = sql(_SELECT + "where holder = :holder and ended_at is null order by terms", steady=True)
_ALL_HELD = sql(_SELECT + "where holder = :holder order by terms")
_UNDER = sql(
    f"""with recursive part (id) as (
           select cast(:id as text)
           union all select budget.budget_id from part join budget on budget.parent = part.id
           where budget.ended_at is null)
       {_SELECT} where budget_id in (select id from part) and ended_at is null"""
)
_INSERT = sql(
    """insert into budget (budget_id, holder, terms, daily, parent)
       values (:id, :holder, :terms, :daily, :parent)"""
)
_TERMS = sql("update budget set terms = :terms where budget_id = :id")
_END = sql("update budget set ended_at = :now where budget_id = :id")
_OPEN = sql(
    """insert into account (account_id, budget_id, ceiling, taken, spent, opened_at)
       values (:id, :budget, :ceiling, 0, 0, :now)
       on conflict (account_id) do update set ceiling = excluded.ceiling where account.ceiling <> excluded.ceiling"""
)
_ACCOUNT = sql("select ceiling, taken, spent from account where account_id = :id")
_TAKE = sql("update account set taken = taken + :units where account_id = :id and taken + :units <= ceiling")
_RETURN = sql("update account set taken = taken - :units where account_id = :id")
_SPEND = sql("update account set spent = spent + :units where account_id = :id")
_OF_ACCOUNT = sql("select budget_id from account where account_id = :id")
_SLICE = sql("select account_id, amount, spent from slice where spool = :spool and account_id = :account")
_SLICES = sql("select account_id, amount, spent from slice where spool = :spool order by account_id")
_PUT_SLICE = sql(
    """insert into slice (spool, account_id, amount, spent) values (:spool, :account, :amount, :spent)
       on conflict (spool, account_id) do update set amount = excluded.amount, spent = excluded.spent"""
)
_DROP_SLICE = sql("delete from slice where spool = :spool and account_id = :account")
_DROP_SLICES = sql("delete from slice where spool = :spool")
_PRUNE = sql(
    """delete from account where account_id in (
           select account_id from account join budget on budget.budget_id = account.budget_id
           where daily = 1 and opened_at < :before
             and not exists (select 1 from slice where slice.account_id = account.account_id)
           limit :limit)"""
)


def insert(tx: Tx, allotment: Allotment) -> None:
    budget = allotment.budget
    tx.run(
        _INSERT, id=budget.id, holder=allotment.holder, terms=_render(budget.limit), daily=int(budget.daily),
        parent=allotment.parent,
    )  # fmt: skip


def get(reader: Reader, id: str) -> Allotment:
    row = reader.one(_GET, id=id)
    assert row is not None  # a row is never deleted
    return _allotment(row)


def held(reader: Reader, holder: str, *, ended: bool = False) -> list[Allotment]:
    """The budgets in force of a task or an agent; those that have ended too, if asked."""
    return [_allotment(row) for row in reader.all(_ALL_HELD if ended else _HELD, holder=holder)]


def under(reader: Reader, id: str) -> list[Allotment]:
    """That budget and those that were taken out of it, or out of those, as far as they are in force."""
    return [_allotment(row) for row in reader.all(_UNDER, id=id)]


def set_limit(tx: Tx, id: str, limit: Limit) -> None:
    tx.run(_TERMS, id=id, terms=_render(limit))


def end(tx: Tx, id: str) -> None:
    tx.run(_END, id=id, now=tx.now)


def open_account(tx: Tx, id: str, budget: Budget) -> None:
    """See that it is there, with the ceiling that the budget now has."""
    tx.run(_OPEN, id=id, budget=budget.id, ceiling=budget.limit.units, now=tx.now)


def account(reader: Reader, id: str) -> Account | None:
    row = reader.one(_ACCOUNT, id=id)
    return None if row is None else Account(*row)


def budget_of(reader: Reader, account: str) -> str:
    row = reader.one(_OF_ACCOUNT, id=account)
    assert row is not None
    return str(row[0])


def take(tx: Tx, account: str, units: int) -> bool:
    """Whether there was so much; then it is gone."""
    return tx.run(_TAKE, id=account, units=units) == 1


def put_back(tx: Tx, account: str, units: int) -> None:
    tx.run(_RETURN, id=account, units=units)


def note_spent(tx: Tx, account: str, units: int) -> None:
    tx.run(_SPEND, id=account, units=units)


def slice_of(reader: Reader, spool: str, account: str) -> Slice:
    row = reader.one(_SLICE, spool=spool, account=account)
    return Slice(account, 0, 0) if row is None else Slice(*row)


def slices(reader: Reader, spool: str) -> list[Slice]:
    return [Slice(*row) for row in reader.all(_SLICES, spool=spool)]


def put_slice(tx: Tx, spool: str, part: Slice) -> None:
    tx.run(_PUT_SLICE, spool=spool, account=part.account, amount=part.amount, spent=part.spent)


def drop_slice(tx: Tx, spool: str, account: str) -> None:
    tx.run(_DROP_SLICE, spool=spool, account=account)


def drop_slices(tx: Tx, spool: str) -> None:
    tx.run(_DROP_SLICES, spool=spool)


def prune(tx: Tx, *, before: int, limit: int) -> int:
    """Forget days that are long over."""
    return tx.run(_PRUNE, before=before, limit=limit)


def _render(limit: Limit) -> str:
    return canonical.encode(msgspec.to_builtins(limit)).decode()


def _allotment(row: Row) -> Allotment:
    id, holder, terms, daily, parent, ended_at = row
    limit: Limit = msgspec.json.decode(terms, type=Limit)
    return Allotment(budget=Budget(id, limit, bool(daily)), holder=holder, parent=parent, ended_at=ended_at)
