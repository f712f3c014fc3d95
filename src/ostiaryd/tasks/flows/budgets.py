"""Budgets: the limits in force, and every way in which units leave an account and come back.

If a limit of a child task counts the same calls as a limit of its parent, its units are taken out of the parent's
account at the start of the child, and unused units come back at its end. Every other limit of the parent applies to the
child too, on the parent's own account. Limits per day belong to agents: to the agent that calls, and to each agent on
whose behalf it acts.

A guard draws slices. A drawn slice counts as spent until the guard returns it or its spool is reported to the end. It
never comes back by time alone, because the calls of a silent guard are unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from msgspec.structs import replace

from ostiary.authorization.budget import (
    MAX_BUDGETS,
    Budget,
    InvalidBudget,
    Limit,
    Volume,
    costs,
    exhausted,
    prices,
    slice_of,
)
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, AgentId
from ostiaryd.tasks.flows.above import above
from ostiaryd.tasks.model import Account, Allotment, Balance, Slice, Task, TaskId
from ostiaryd.tasks.store import budgets as store

_NONE: Mapping[str, int] = MappingProxyType({})
DAYS_KEPT_US = 7 * 86_400_000_000


def in_force(reader: Reader, task: Task) -> tuple[Budget, ...]:
    """Return all budgets from which a call under the task takes units."""
    if not store.is_there_any(reader):
        return ()
    line = [(task.task_id, task.agent)]
    if task.chain:
        line += [(TaskId(link.task), AgentId(link.agent)) for link in task.chain]
    else:
        line += [(one.task_id, one.agent) for one in above(reader, task)]
    allotments: list[Allotment] = []
    replaced: set[str | None] = set()
    for id in dict.fromkeys(id for id, _ in line):
        for allotment in store.allotments(reader, id):
            if allotment.budget.id not in replaced:
                allotments.append(allotment)
            replaced.add(allotment.parent)  # what this was taken out of is counted with it
    for agent in dict.fromkeys(agent for _, agent in line):
        allotments += store.allotments(reader, agent)
    return tuple(allotment.budget for allotment in allotments)


def allot(act: Act, task: Task, limits: Sequence[Limit]) -> None:
    """Give a new task its budget. Raises InvalidBudget if the task above has less left."""
    outer = [one for one in in_force(act.tx, task) if not one.daily]
    for limit in limits:
        source = next((one for one in outer if one.limit.meter == limit.meter), None)
        budget = Budget(act.new_id("bu"), limit if source is None else limit.within(source.limit))
        if source is not None and not store.take(act.tx, source.id, budget.limit.units):
            left = source.limit.render(balance(act.tx, source, now=act.now).left)
            raise InvalidBudget(f"the task above has {left} left, not {limit.limit}", hint="a budget only narrows")
        _check_per_call(limit, None if source is None else source.limit)
        parent = None if source is None else source.id
        store.insert(act.tx, Allotment(budget=budget, holder=task.task_id, parent=parent))
        store.open_account(act.tx, budget.id, budget)
    if limits and len(in_force(act.tx, task)) > MAX_BUDGETS:
        raise InvalidBudget(
            f"more than {MAX_BUDGETS} budget limits apply to this task", hint="limits of the tasks above count too"
        )


def _check_per_call(limit: Limit, outer: Limit | None) -> None:
    """Check that one call may return no more than a call of the task above. Raises InvalidBudget."""
    if outer is not None and _per_call(limit) > (most := _per_call(outer)):
        raise InvalidBudget(f"a call of the task above returns at most {most}", hint="a budget only narrows")


def _per_call(limit: Limit) -> int:
    """Return the most that one call may return under a limit on volume."""
    return limit.per_call if isinstance(limit, Volume) else 0


def give_up(act: Act, task: Task) -> None:
    """Return the unspent units of the task, and of all tasks under it, to the accounts that they came from;
    called before the task ends.
    """
    accounts = store.left_under(act.tx, task.task_id)
    back: Counter[str] = Counter()
    for id, (parent, left) in accounts.items():
        if parent is None or left <= 0:
            continue
        while parent in accounts:  # it ends too
            id, parent = parent, accounts[parent][0]
        back[parent or id] += left
    for id, left in back.items():
        store.put_back(act.tx, id, left)


def set_allowance(act: Act, id_or_name: str, limits: Sequence[Limit]) -> Agent:
    """Set the limits of an agent for each day of UTC; units used today still count.

    Tokens name the limits in force. If a limit is new, or one call may now return less or more, all holdings of the
    agent end. Raises NotFound, and InvalidBudget for a limit with a smaller unit than before.
    """
    agent = registry.find_agent(act.tx, id_or_name)
    registry.note(act, object=agent.agent_id, owner=agent.owner, limits=len(limits))
    current = {one.budget.limit.meter: one.budget for one in store.allotments(act.tx, agent.agent_id)}
    fresh = [limit for limit in limits if limit.meter not in current]
    others = [
        limit
        for limit in limits
        if limit.meter in current and _per_call(limit) != _per_call(current[limit.meter].limit)
    ]
    for limit in limits:
        if (old := current.pop(limit.meter, None)) is not None:
            store.set_limit(act.tx, old.id, limit.within(old.limit))
    for gone in current.values():
        store.end(act.tx, gone.id)
    for limit in fresh:
        budget = Budget(act.new_id("bu"), limit, daily=True)
        store.insert(act.tx, Allotment(budget=budget, holder=agent.agent_id))
    return registry.renew_tokens(act, agent, why="another budget") if fresh or others else agent


def allowance(reader: Reader, agent: Agent) -> tuple[Budget, ...]:
    """Return the daily limits of an agent; empty without any."""
    return tuple(one.budget for one in store.allotments(reader, agent.agent_id))


def balance(reader: Reader, budget: Budget, *, now: int) -> Account:
    """Return the used share of a budget (of a daily one: of today)."""
    account = store.account(reader, budget.account(now))
    return Account(budget.limit.units, 0, 0) if account is None else replace(account, ceiling=budget.limit.units)


def balances(reader: Reader, budgets: Iterable[Budget], *, now: int) -> list[Balance]:
    """Return the used share for people."""
    return [_balance(budget, balance(reader, budget, now=now)) for budget in budgets]


def balances_of(reader: Reader, task: Task, *, now: int) -> list[Balance]:
    """Return all limits that apply to a task; of an ended task, the final state of its own budgets."""
    if task.is_live(now):
        return balances(reader, in_force(reader, task), now=now)
    return [_over(reader, one, now=now) for one in store.allotments(reader, task.task_id)]


def spend(
    act: Act, budgets: Collection[Budget], tool: str, arguments: Mapping[str, object], *, classes: frozenset[str]
) -> None:
    """Spend the units of a call that the server itself allows: from each account, or from none.

    A volume is charged with the largest amount that the call may return, because the server does not see the result.
    `classes`: data classes that the tool handles. Raises Exhausted, BadAmount.
    """
    cost = costs(prices(budgets, tool, classes), arguments, now=act.now)
    touched = [budget for budget in budgets if cost.get(budget.account(act.now))]
    for budget in touched:
        left = balance(act.tx, budget, now=act.now).left
        if left < cost[budget.account(act.now)]:
            raise exhausted(budget, left)
    for budget in touched:
        account = budget.account(act.now)
        store.open_account(act.tx, account, budget)
        store.take(act.tx, account, cost[account])
        _note_spent(act.tx, account, cost[account])


def draw(act: Act, spool: str, budget: Budget, need: int) -> tuple[int, int]:
    """Raise the total that the guard of a spool ever drew from this budget to at least `need` units. Return the new
    total, which is lower if the account has too little, and the rest of the account.
    """
    account = budget.account(act.now)
    store.open_account(act.tx, account, budget)
    part, left = store.slice_of(act.tx, spool, account), balance(act.tx, budget, now=act.now).left
    more = slice_of(left, need - part.amount) if need > part.amount else 0
    if more and store.take(act.tx, account, more):
        part, left = replace(part, amount=part.amount + more), left - more
        store.put_slice(act.tx, spool, part)
    return part.amount, left


def give_back(act: Act, spool: str, account: str, keep: int) -> bool:
    """Settle a slice: of all units that it ever drew, the guard keeps `keep`, and never spends the rest. Return whether
    the slice is used up and fully reported; then it is deleted.
    """
    part = store.slice_of(act.tx, spool, account)
    rest = part.amount - max(keep, part.spent)
    if rest > 0:
        part = replace(part, amount=part.amount - rest)
        store.put_slice(act.tx, spool, part)
        _put_back(act.tx, _allotment_of(act.tx, account), account, rest)
    if part.amount > part.spent:
        return False
    store.drop_slice(act.tx, spool, account)
    return True


def report_spent(tx: Tx, spool: str, spent: Mapping[str, int], unused: Mapping[str, int] = _NONE) -> None:
    """Record the reported spending of a guard: units spent of a slice, and units that calls took in advance and did not
    use.

    Only units of volumes come back, because a call that was made cannot be undone. If calls returned more than they
    took, the difference is taken now, as far as the account has it.
    """
    for account in dict.fromkeys((*spent, *unused)):
        part = store.slice_of(tx, spool, account)
        units, back = spent.get(account, 0), unused.get(account, 0)
        if back and part.amount and isinstance(_allotment_of(tx, account).budget.limit, Volume):
            units -= back
            if (over := units - (part.amount - part.spent)) > 0:
                part = _overdraw(tx, part, over)
        if counted := max(-part.spent, min(units, part.amount - part.spent)):
            store.put_slice(tx, spool, replace(part, spent=part.spent + counted))
            _note_spent(tx, account, counted)


def _overdraw(tx: Tx, part: Slice, units: int) -> Slice:
    """Draw units that a guard has spent without drawing them, as far as units remain."""
    account = store.account(tx, part.account)
    more = 0 if account is None else min(units, account.left)
    return replace(part, amount=part.amount + more) if more and store.take(tx, part.account, more) else part


def report_lost(tx: Tx, spool: str) -> None:
    """Count all units at a guard as spent, because records of the guard are missing."""
    report_spent(tx, spool, {part.account: part.amount - part.spent for part in store.slices(tx, spool)})


def settle(tx: Tx, spool: str) -> dict[str, int]:
    """Close the slices of a guard that will never spend again and has reported everything; return the units, by
    account.
    """
    rest = {part.account: part.amount - part.spent for part in store.slices(tx, spool)}
    for account, units in rest.items():
        _put_back(tx, _allotment_of(tx, account), account, units)
    store.drop_slices(tx, spool)
    return {account: units for account, units in rest.items() if units}


async def forget_days(world: World) -> int:
    """Delete the accounts of days that passed long ago."""
    return await world.writer.submit(lambda tx: store.prune(tx, before=tx.now - DAYS_KEPT_US, limit=1000))


def _balance(budget: Budget, account: Account) -> Balance:
    render = budget.limit.render
    return Balance(budget.id, budget.limit, render(account.left), render(account.spent), budget.daily)


def _over(reader: Reader, allotment: Allotment, *, now: int) -> Balance:
    """Return the final state of a budget of an ended task, whose unspent units went back to the account that
    they came from.
    """
    account = balance(reader, allotment.budget, now=now)
    return _balance(allotment.budget, account if allotment.parent is None else replace(account, drawn=account.ceiling))


def _allotment_of(reader: Reader, account: str) -> Allotment:
    return store.get(reader, store.budget_of(reader, account))


def _put_back(tx: Tx, allotment: Allotment, account: str, units: int) -> None:
    """Return units to the account, or to the nearest live account above if its task has ended."""
    while allotment.ended_at is not None and allotment.parent is not None:
        allotment = store.get(tx, account := allotment.parent)
    store.put_back(tx, account, units)


def _note_spent(tx: Tx, account: str, units: int) -> None:
    """Record units as spent, on the account and on every account from which it was taken."""
    store.note_spent(tx, account, units)
    parent = _allotment_of(tx, account).parent
    while parent is not None:
        store.note_spent(tx, parent, units)
        parent = store.get(tx, parent).parent
