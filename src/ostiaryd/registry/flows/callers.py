"""Records the caller of an operation in the entry. A caller who is an owner without administrator rights is limited to
the permitted verbs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from ostiary.protocol.errors import Conflict, Forbidden
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import store
from ostiaryd.registry.model import ADMIN, Agent, Caller, Verb
from ostiaryd.registry.model.role import ADMINISTRATOR

T = TypeVar("T")
OWNER_VERBS = frozenset({Verb.SUSPEND, Verb.REVOKE})
"""Verbs that an owner may use for the owner's agents: stopping them. Only an administrator can make an agent active
again.
"""


def record_caller(act: Act, caller: Caller) -> None:
    """Write the caller into the ledger entry of the act."""
    entry = act.entry
    match caller.kind:
        case "person":
            entry.person = caller.id
        case "agent":
            entry.agent = caller.id
        case "guard" | "pep":
            entry.reporter = caller.id
    entry.owner, entry.task, entry.token, entry.key = caller.owner, caller.task, caller.token, caller.jkt


def act_as(call: Call, action: str, flow: Callable[[Act], T], *, again: object = None) -> Awaitable[T]:
    """Authenticate the caller, run `flow` in an act whose ledger entry names the caller, and return the flow's result.

    An act of a person may not remove the last person who is an administrator: Conflict (`last_administrator`). An agent
    with the administrator scope may do so, because the agent itself remains.
    """

    def run(act: Act) -> T:
        caller = call.prove(act)
        record_caller(act, caller)
        has_administrator = caller.kind == "person" and store.roles.has_holder(act.tx, ADMINISTRATOR)
        done = flow(act)
        if has_administrator and not store.roles.has_holder(act.tx, ADMINISTRATOR):
            raise Conflict(
                "no other person would remain an administrator",
                hint="grant another person the role first: ostiary role grant NAME administrator",
                code="last_administrator",
            )
        return done

    return act(call.world, action, run, request=call.request_id, again=again, network=call.network)


def fill_entry(act: Act, *, object: str, owner: str | None = None, **detail: Any) -> None:
    """Write the object of the act, its owner and `detail` into the ledger entry of the act. Call this before a possible
    refusal, so that the entry of the refusal names the object too.
    """
    entry = act.entry
    entry.object = object
    if entry.owner is None:
        entry.owner = owner
    entry.detail = dict(entry.detail or ())
    for name, value in detail.items():
        if value:
            entry.detail[name] = value


def check_may(act: Act, caller: Caller | None, verb: Verb, agent: Agent) -> None:
    """Check that the caller may use this verb for the agent: an administrator may use all verbs, the owner those in
    `OWNER_VERBS`. Raises Forbidden otherwise.

    A caller of None is the server itself: an expiry, or a detector.
    """
    if caller is None or caller.is_admin:
        return
    if verb in OWNER_VERBS and answers_for(act.tx, caller.id, agent):
        return
    raise Forbidden(
        f"you may not {verb} the agent `{agent.name}`",
        hint="the owner may suspend or revoke the agent; an administrator may use every verb",
    )


def check_admin(caller: Caller | None) -> None:
    """Check that the caller is an administrator, or the server itself (None). Raises Forbidden otherwise."""
    if caller is not None and not caller.is_admin:
        raise Forbidden("only administrators may do this", hint=f"request a token with the scope {ADMIN}")


def answers_for(reader: Reader, person: str, agent: Agent, *, deputies: bool = False) -> bool:
    """Return whether the person is the owner of the agent, or a member of the team that owns it. With `deputies`, a
    deputy of the agent or of its owner counts too.
    """
    if person == agent.owner or store.owners.is_member(reader, agent.owner, person):
        return True
    owner = store.owners.get_owner(reader, agent.owner) if deputies else None
    return deputies and person in (agent.deputy, owner.deputy if owner is not None else None)
