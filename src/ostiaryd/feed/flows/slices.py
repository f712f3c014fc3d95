"""Slices of budgets for guards: a guard draws a slice under a live token for its own resource, and returns unused
units.
"""

from __future__ import annotations

from ostiary.decision.slices import Draw, Drawn, GiveBack, GivenBack
from ostiary.protocol.errors import Conflict, Forbidden
from ostiaryd.feed import store
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.tasks import flows as tasks


def draw(act: Act, request: Draw, *, resource_id: str) -> Drawn:
    """Give a guard the units that a call needs of each budget and, in advance, a part of the units left.

    If a budget has fewer units than the call needs, the guard gets none of that budget, and keeps the units it has. The
    result has for each budget the guard's units in total and the units left for other guards.

    Raises Forbidden if the token is not live or not for this resource, if a budget is not in force for the token today,
    or if the spool (the guard's numbered records) is closed or belongs to another resource; Conflict if a request of
    the spool with this number or a higher number was handled before.
    """
    resource = registry.find_resource(act.tx, resource_id)
    act.entry.resource, act.entry.token = resource.uri, request.token
    holding, task_id = registry.find_token(act.tx, request.token, resource, now=act.now)
    act.entry.agent, act.entry.task = holding.agent, task_id
    task = tasks.live(act.tx, task_id, now=act.now)
    budgets = {budget.account(act.now): budget for budget in tasks.in_force(act.tx, task)}
    if unknown := request.need.keys() - budgets.keys():
        problem = f"{min(unknown)} is not a budget of this token's task today"
        raise Forbidden(problem, hint="get a new token", code="no_budget")
    _own_spool(act, request.spool, resource_id)
    _take_turn(act, request.spool, request.turn)
    drawn = {account: tasks.draw(act, request.spool, budgets[account], need) for account, need in request.need.items()}
    total = {account: total for account, (total, _) in drawn.items()}
    act.entry.detail = {"spool": request.spool, "need": request.need, "total": total}
    return Drawn(total, {account: left for account, (_, left) in drawn.items()})


def give_back(act: Act, returned: GiveBack, *, resource_id: str) -> GivenBack:
    """Take back unused units of a guard, which keeps `keep` units of each budget. A repetition under a new number
    changes nothing.

    The result names the budgets of which the guard has no units left. Raises Forbidden if the spool is closed or
    belongs to another resource; Conflict if a request of the spool with this number or a higher number was handled
    before.
    """
    act.entry.detail = {"spool": returned.spool, "keep": returned.keep}
    _own_spool(act, returned.spool, resource_id)
    _take_turn(act, returned.spool, returned.turn)
    kept = returned.keep.items()
    return GivenBack([account for account, units in kept if tasks.give_back(act, returned.spool, account, units)])


def settle(act: Act, spool: str, *, last_record: int, resource_id: str) -> None:
    """Close the spool (the numbered records) of a guard that no longer uses it, and return its drawn and unspent units
    to their budgets. A closed spool stays as it is.

    Raises Forbidden if the spool belongs to another resource; Conflict while records up to `last_record` are missing.
    """
    known_spool = store.spool(act.tx, spool)
    act.entry.detail = {"spool": spool, "told": last_record}
    if known_spool is not None and known_spool[2]:
        return
    _own_spool(act, spool, resource_id)
    if last_record >= (1 if known_spool is None else known_spool[1]):
        raise Conflict(f"record {last_record} has not been reported", hint="report the record first")
    back = tasks.settle(act.tx, spool)
    store.close_spool(act.tx, spool)
    act.entry.detail["back"] = back


def _own_spool(act: Act, id: str, resource_id: str) -> None:
    """Check that the spool belongs to this resource and is open. A new spool is assigned to this resource. Raises
    Forbidden if the check fails.
    """
    spool = store.spool(act.tx, id)
    if spool is None:
        store.save_spool(act.tx, id, resource_id=resource_id, next=1)
    elif spool[0] != resource_id:
        raise Forbidden("the spool belongs to another resource", hint="give each resource a `spool_dir` of its own")
    elif spool[2]:
        raise Forbidden("the spool is closed", hint="begin a new spool", code="spool_closed")


def _take_turn(act: Act, spool: str, turn: int) -> None:
    """Store `turn`, the guard's number of this request, and lock the spool. Raises Conflict if a request with a higher
    number was handled before.
    """
    if not store.take_turn(act.tx, spool, turn):
        raise Conflict(
            "the server has already handled this or a later request of this guard",
            hint="send a new request",
            code="out_of_turn",
        )
