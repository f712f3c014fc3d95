"""Budgets: the limits in force, and all changes of the accounts of units.

A limit of a child task can count the same calls as a limit of its parent. Its units are then taken from the parent's
account when the child starts, and unused units are returned when the child ends. Every other limit of the parent
applies to calls under the child too, on the parent's own account. Daily limits belong to agents: to the agent that
calls, and to each agent on whose behalf it acts.

A guard draws slices. A drawn slice counts as spent until the guard returns it, or all records in its spool have
arrived. Units never come back because of time alone, because it is unknown which calls a guard without connection has
made.
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
from ostiaryd.tasks import store
from ostiaryd.tasks.flows.find import above
from ostiaryd.tasks.model import Account, Allotment, Balance, Slice, Task, TaskId

_NONE: Mapping[str, int] = MappingProxyType({})
DAYS_KEPT_US = 7 * 86_400_000_000


def in_force(reader: Reader, task: Task) -> tuple[Budget, ...]:
    """Return all budgets to which a call under the task is charged: those of the task, of the tasks above it, and the
    daily budgets of the agents. A budget from which a nearer budget took its units is left out.
    """
    if not store.budgets.is_there_any(reader):
        return ()
    line = [(task.task_id, task.agent)]
    if task.chain:
        line += [(TaskId(link.task), AgentId(link.agent)) for link in task.chain]
    else:
        line += [(one.task_id, one.agent) for one in above(reader, task)]
    allotments: list[Allotment] = []
    replaced: set[str | None] = set()
    for id in dict.fromkeys(id for id, _ in line):
        for allotment in store.budgets.allotments(reader, id):
            if allotment.budget.id not in replaced:
                allotments.append(allotment)
            replaced.add(allotment.parent)  # a charge to a limit also charges the limit it was taken from
    for agent in dict.fromkeys(agent for _, agent in line):
        allotments += store.budgets.allotments(reader, agent)
    return tuple(allotment.budget for allotment in allotments)


def create_budget(act: Act, task: Task, limits: Sequence[Limit]) -> None:
    """Create the budget of a new task. If the task above has a limit on the same calls, the units of the new limit are
    taken from that limit. Raises InvalidBudget if the limit above has too few units left, fewer decimal places, or a
    lower maximum for one call, or if too many limits would apply to the task.
    """
    outer = [one for one in in_force(act.tx, task) if not one.daily]
    for limit in limits:
        source = next((one for one in outer if one.limit.meter == limit.meter), None)
        budget = Budget(act.new_id("bu"), limit if source is None else limit.within(source.limit))
        if source is not None and not store.budgets.take(act.tx, source.id, budget.limit.units):
            left = source.limit.render(balance(act.tx, source, now=act.now).left)
            raise InvalidBudget(
                f"the budget of the task above has {left} left, less than {limit.limit}, which this task requests",
                hint="reduce the limit: a task gets its budget from the task above",
            )
        _check_per_call(limit, None if source is None else source.limit)
        parent = None if source is None else source.id
        store.budgets.insert(act.tx, Allotment(budget=budget, holder=task.task_id, parent=parent))
        store.budgets.open_account(act.tx, budget.id, budget)
    if limits and len(in_force(act.tx, task)) > MAX_BUDGETS:
        raise InvalidBudget(
            f"more than {MAX_BUDGETS} budget limits apply to this task", hint="limits of the tasks above count too"
        )


def _check_per_call(limit: Limit, outer: Limit | None) -> None:
    """Check that one call of a task may not return more than one call of the task above. Raises InvalidBudget
    otherwise.
    """
    if outer is not None and (amount := _per_call(limit)) > (most := _per_call(outer)):
        raise InvalidBudget(
            f"a limit lets one call return {amount}, more than the {most} that the task above permits",
            hint=f"reduce `per_call` to at most {most}",
        )


def _per_call(limit: Limit) -> int:
    """Return the maximum amount that one call may return under a limit on a volume, in units of the limit."""
    return limit.per_call if isinstance(limit, Volume) else 0


def give_up(act: Act, task: Task) -> None:
    """Return the unspent units of a task and of all tasks under it to the accounts from which they were taken. Call
    this before the task ends.
    """
    accounts = store.budgets.left_under(act.tx, task.task_id)
    back: Counter[str] = Counter()
    for id, (parent, left) in accounts.items():
        if parent is None or left <= 0:
            continue
        while parent in accounts:  # it ends too
            id, parent = parent, accounts[parent][0]
        back[parent or id] += left
    for id, left in back.items():
        store.budgets.put_back(act.tx, id, left)


def set_allowance(act: Act, id_or_name: str, limits: Sequence[Limit]) -> Agent:
    """Set the daily limits (UTC) of an agent, and return the agent. Units that were used today still count.

    Tokens contain the limits in force. If a limit is new, or the maximum of one call changes, all holdings (such as
    tokens) of the agent end. Raises NotFound for an unknown agent, and InvalidBudget for a limit with more decimal
    places than the limit that it replaces.
    """
    agent = registry.find_agent(act.tx, id_or_name)
    registry.fill_entry(act, object=agent.agent_id, owner=agent.owner, limits=len(limits))
    current = {one.budget.limit.meter: one.budget for one in store.budgets.allotments(act.tx, agent.agent_id)}
    fresh = [limit for limit in limits if limit.meter not in current]
    others = [
        limit
        for limit in limits
        if limit.meter in current and _per_call(limit) != _per_call(current[limit.meter].limit)
    ]
    for limit in limits:
        if (old := current.pop(limit.meter, None)) is not None:
            store.budgets.set_limit(act.tx, old.id, limit.within(old.limit))
    for gone in current.values():
        store.budgets.end(act.tx, gone.id)
    for limit in fresh:
        budget = Budget(act.new_id("bu"), limit, daily=True)
        store.budgets.insert(act.tx, Allotment(budget=budget, holder=agent.agent_id))
    return registry.renew_tokens(act, agent, why="another budget") if fresh or others else agent


def allowance(reader: Reader, agent: Agent) -> tuple[Budget, ...]:
    """Return the daily limits of an agent; empty without any."""
    return tuple(one.budget for one in store.budgets.allotments(reader, agent.agent_id))


def balance(reader: Reader, budget: Budget, *, now: int) -> Account:
    """Return the account of a budget at `now` (microseconds); for a daily budget, the account of that day."""
    account = store.budgets.account(reader, budget.account(now))
    return Account(budget.limit.units, 0, 0) if account is None else replace(account, ceiling=budget.limit.units)


def balances(reader: Reader, budgets: Iterable[Budget], *, now: int) -> list[Balance]:
    """Return, for people, how many units each of these budgets has, has spent and has left."""
    return [_balance(budget, balance(reader, budget, now=now)) for budget in budgets]


def balances_of(reader: Reader, task: Task, *, now: int) -> list[Balance]:
    """Return the states of all limits that apply to a task. For an ended task, return the final states of its own
    budgets.
    """
    if task.is_live(now):
        return balances(reader, in_force(reader, task), now=now)
    return [_final_state(reader, one, now=now) for one in store.budgets.allotments(reader, task.task_id)]


def spend(
    act: Act, budgets: Collection[Budget], tool: str, arguments: Mapping[str, object], *, classes: frozenset[str]
) -> None:
    """Charge a call that the server itself allows to all these budgets, or to none of them if one has too few units.

    A volume is charged with the largest amount that the call may return, because the server does not see the result.
    `classes`: data classes that the tool handles. Raises Exhausted for a budget with too few units, BadAmount if the
    call states no valid amount.
    """
    cost = costs(prices(budgets, tool, classes), arguments, now=act.now)
    touched = [budget for budget in budgets if cost.get(budget.account(act.now))]
    for budget in touched:
        left = balance(act.tx, budget, now=act.now).left
        if left < cost[budget.account(act.now)]:
            raise exhausted(budget, left)
    for budget in touched:
        account = budget.account(act.now)
        store.budgets.open_account(act.tx, account, budget)
        store.budgets.take(act.tx, account, cost[account])
        _note_spent(act.tx, account, cost[account])


def draw(act: Act, spool: str, budget: Budget, need: int) -> tuple[int, int]:
    """Give a guard units of a budget in advance, so that the total which the guard of the spool `spool` drew is at
    least `need`. Return the new total, which is lower than `need` if the budget has too few units left, and the number
    of units that the budget then has left for other guards.
    """
    account = budget.account(act.now)
    store.budgets.open_account(act.tx, account, budget)
    part, left = store.budgets.slice_of(act.tx, spool, account), balance(act.tx, budget, now=act.now).left
    more = slice_of(left, need - part.amount) if need > part.amount else 0
    if more and store.budgets.take(act.tx, account, more):
        part, left = replace(part, amount=part.amount + more), left - more
        store.budgets.put_slice(act.tx, spool, part)
    return part.amount, left


def give_back(act: Act, spool: str, account: str, keep: int) -> bool:
    """Take back units that a guard drew in advance: the guard keeps `keep` of all units that it ever drew, and will
    never spend the rest. Return whether the guard has reported all kept units as spent; then the server deletes its
    slice.
    """
    part = store.budgets.slice_of(act.tx, spool, account)
    rest = part.amount - max(keep, part.spent)
    if rest > 0:
        part = replace(part, amount=part.amount - rest)
        store.budgets.put_slice(act.tx, spool, part)
        _put_back(act.tx, _allotment_of(act.tx, account), account, rest)
    if part.amount > part.spent:
        return False
    store.budgets.drop_slice(act.tx, spool, account)
    return True


def report_spent(tx: Tx, spool: str, spent: Mapping[str, int], unused: Mapping[str, int] = _NONE) -> None:
    """Record the spending that a guard reports, by account: `spent` units, and `unused` units that calls had reserved
    and did not use.

    Only reserved volumes are returned, because a call that was made cannot be undone. If calls returned more than they
    had reserved, the difference is taken now, as far as the account has units.
    """
    for account in dict.fromkeys((*spent, *unused)):
        part = store.budgets.slice_of(tx, spool, account)
        units, back = spent.get(account, 0), unused.get(account, 0)
        if back and part.amount and isinstance(_allotment_of(tx, account).budget.limit, Volume):
            units -= back
            if (over := units - (part.amount - part.spent)) > 0:
                part = _overdraw(tx, part, over)
        if counted := max(-part.spent, min(units, part.amount - part.spent)):
            store.budgets.put_slice(tx, spool, replace(part, spent=part.spent + counted))
            _note_spent(tx, account, counted)


def _overdraw(tx: Tx, part: Slice, units: int) -> Slice:
    """Draw units that a guard has spent beyond its slice, as far as the account has units; return the changed slice."""
    account = store.budgets.account(tx, part.account)
    more = 0 if account is None else min(units, account.left)
    return replace(part, amount=part.amount + more) if more and store.budgets.take(tx, part.account, more) else part


def report_lost(tx: Tx, spool: str) -> None:
    """Count all units that a guard drew in advance as spent, because records of the guard (its spool) are missing."""
    report_spent(tx, spool, {part.account: part.amount - part.spent for part in store.budgets.slices(tx, spool)})


def settle(tx: Tx, spool: str) -> dict[str, int]:
    """End the slices (units drawn in advance) of a guard that has reported everything and will never spend again;
    return the units that went back to their budgets, by account.
    """
    rest = {part.account: part.amount - part.spent for part in store.budgets.slices(tx, spool)}
    for account, units in rest.items():
        _put_back(tx, _allotment_of(tx, account), account, units)
    store.budgets.drop_slices(tx, spool)
    return {account: units for account, units in rest.items() if units}


async def forget_days(world: World) -> int:
    """Delete at most 1,000 accounts of daily budgets, each opened more than `DAYS_KEPT_US` ago; return the number of
    deleted accounts.
    """
    return await world.writer.submit(lambda tx: store.budgets.prune(tx, before=tx.now - DAYS_KEPT_US, limit=1000))


def _balance(budget: Budget, account: Account) -> Balance:
    render = budget.limit.render
    return Balance(budget.id, budget.limit, render(account.left), render(account.spent), budget.daily)


def _final_state(reader: Reader, allotment: Allotment, *, now: int) -> Balance:
    """Return the final state of a budget of an ended task, without the unspent units, which were returned."""
    account = balance(reader, allotment.budget, now=now)
    return _balance(allotment.budget, account if allotment.parent is None else replace(account, drawn=account.ceiling))


def _allotment_of(reader: Reader, account: str) -> Allotment:
    return store.budgets.get(reader, store.budgets.budget_of(reader, account))


def _put_back(tx: Tx, allotment: Allotment, account: str, units: int) -> None:
    """Return units to an account. If its task has ended, return them to the nearest live account above."""
    while allotment.ended_at is not None and allotment.parent is not None:
        allotment = store.budgets.get(tx, account := allotment.parent)
    store.budgets.put_back(tx, account, units)


def _note_spent(tx: Tx, account: str, units: int) -> None:
    """Record units as spent on an account, and on every account from which it was taken."""
    store.budgets.note_spent(tx, account, units)
    parent = _allotment_of(tx, account).parent
    while parent is not None:
        store.budgets.note_spent(tx, parent, units)
        parent = store.budgets.get(tx, parent).parent
