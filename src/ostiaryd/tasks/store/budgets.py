"""Stored budgets, their accounts, and the slices of guards."""

from __future__ import annotations

import msgspec

from ostiary.authorization.budget import Budget, Limit
from ostiary.protocol import canonical
from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.tasks.model import Account, Allotment, Slice

_SELECT = """select budget_id, holder, terms, daily, parent, ended_at from budget """
_GET = sql(
    """select budget_id, holder, terms, daily, budget.parent, coalesce(budget.ended_at, task.ended_at)
       from budget left join task on task_id = holder where budget_id = :id""",
    steady=True,
)
_HELD = sql(_SELECT + "where holder = :holder and ended_at is null order by terms", steady=True)
_ANY = sql("select 1 from budget limit 1", steady=True)
_LEFT_UNDER = sql(
    """with recursive tree (id) as (
           select task_id from task where task_id = :task and state = 'live'
           union all select task.task_id from tree join task on task.parent = tree.id where task.state = 'live')
       select account_id, parent, ceiling - taken from tree
           join budget on holder = id join account on account_id = budget.budget_id"""
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
    """Insert a budget with its holder into the table `budget`."""
    budget = allotment.budget
    tx.send(
        _INSERT,
        id=budget.id,
        holder=allotment.holder,
        terms=_render(budget.limit),
        daily=int(budget.daily),
        parent=allotment.parent,
    )


def is_there_any(reader: Reader) -> bool:
    """Return whether any budget exists."""
    return reader.one(_ANY) is not None


def get(reader: Reader, id: str) -> Allotment:
    """Return a budget with its holder by the id of the budget."""
    row = reader.one(_GET, id=id)
    assert row is not None  # the row exists, because rows are never deleted
    return _allotment(row)


def allotments(reader: Reader, holder: str) -> list[Allotment]:
    """Return the budgets of a holder that are in force: of a task, or the daily budgets of an agent."""
    return [_allotment(row) for row in reader.all(_HELD, holder=holder)]


def set_limit(tx: Tx, id: str, limit: Limit) -> None:
    """Set the limit of an allotment (a budget with its holder)."""
    tx.send(_TERMS, id=id, terms=_render(limit))


def end(tx: Tx, id: str) -> None:
    """Mark a budget as ended now. No further call is charged to its account."""
    tx.send(_END, id=id, now=tx.now)


def left_under(reader: Reader, task: str) -> dict[str, tuple[str | None, int]]:
    """Return the unspent units of each budget of a task and of the live tasks under it, by account, with the account
    from which they were taken (None for none).
    """
    return {id: (parent, left) for id, parent, left in reader.all(_LEFT_UNDER, task=task)}


def open_account(tx: Tx, id: str, budget: Budget) -> None:
    """Create an account if it does not exist, and set its limit to that of the budget."""
    tx.send(_OPEN, id=id, budget=budget.id, ceiling=budget.limit.units, now=tx.now)


def account(reader: Reader, id: str) -> Account | None:
    """Return an account; None if there is none."""
    row = reader.one(_ACCOUNT, id=id)
    return None if row is None else Account(*row)


def budget_of(reader: Reader, account: str) -> str:
    """Return the id of the budget to which an account belongs."""
    row = reader.one(_OF_ACCOUNT, id=account)
    assert row is not None
    return str(row[0])


def take(tx: Tx, account: str, units: int) -> bool:
    """Take `units` from an account, so that they count as drawn. If the account has fewer units left, take none and
    return false.
    """
    return tx.run(_TAKE, id=account, units=units) == 1


def put_back(tx: Tx, account: str, units: int) -> None:
    """Subtract `units` from the drawn units of an account, because they were not spent."""
    tx.send(_RETURN, id=account, units=units)


def note_spent(tx: Tx, account: str, units: int) -> None:
    """Count units as spent that were drawn from an account before; a negative number undoes such a count.

    No limit is checked, and the accounts above this account do not change.
    """
    tx.send(_SPEND, id=account, units=units)


def slice_of(reader: Reader, spool: str, account: str) -> Slice:
    """Return the units that the guard with this spool drew from an account in advance; an empty slice if there are
    none.
    """
    row = reader.one(_SLICE, spool=spool, account=account)
    return Slice(account, 0, 0) if row is None else Slice(*row)


def slices(reader: Reader, spool: str) -> list[Slice]:
    """Return all slices (drawn parts of budgets) of the guard with this spool."""
    return [Slice(*row) for row in reader.all(_SLICES, spool=spool)]


def put_slice(tx: Tx, spool: str, part: Slice) -> None:
    """Insert or replace the slice of an account that the guard of a spool has drawn."""
    tx.send(_PUT_SLICE, spool=spool, account=part.account, amount=part.amount, spent=part.spent)


def drop_slice(tx: Tx, spool: str, account: str) -> None:
    """Delete the slice of an account that the guard of a spool had drawn."""
    tx.send(_DROP_SLICE, spool=spool, account=account)


def drop_slices(tx: Tx, spool: str) -> None:
    """Delete all slices that the guard of a spool had drawn."""
    tx.send(_DROP_SLICES, spool=spool)


def prune(tx: Tx, *, before: int, limit: int) -> int:
    """Delete at most `limit` accounts of daily budgets that were opened before `before` (microseconds) and of which no
    guard has a slice; return the number of deleted accounts.
    """
    return tx.run(_PRUNE, before=before, limit=limit)


def _render(limit: Limit) -> str:
    return canonical.encode(msgspec.to_builtins(limit)).decode()


def _allotment(row: Row) -> Allotment:
    id, holder, terms, daily, parent, ended_at = row
    limit: Limit = json_decoder(Limit)(terms)
    return Allotment(budget=Budget(id, limit, bool(daily)), holder=holder, parent=parent, ended_at=ended_at)
