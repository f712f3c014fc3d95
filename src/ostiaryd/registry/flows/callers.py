"""The caller of an operation: its record in the entry, and the rights of an owner without administrator rights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ostiary.protocol.errors import Conflict, Forbidden
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry.model import ADMIN, Agent, Caller, Verb
from ostiaryd.registry.model.role import ADMINISTRATOR
from ostiaryd.registry.store import owners, roles

T = TypeVar("T")
OWNER_MAY = frozenset({Verb.SUSPEND, Verb.REVOKE})
"""Verbs that an owner may use: an owner may always stop an agent, but only an administrator releases it."""


def note_caller(act: Act, caller: Caller) -> None:
    """Name the caller in the entry."""
    entry = act.entry
    match caller.kind:
        case "person":
            entry.person = caller.id
        case "agent":
            entry.agent = caller.id
        case "guard" | "pep":
            entry.reporter = caller.id
    entry.owner, entry.task, entry.token, entry.key = caller.owner, caller.task, caller.token, caller.jkt


async def act_as(call: Call, action: str, flow: Callable[[Act], T], *, again: object = None) -> T:
    """Run `act` with the caller of the request in the entry.

    An act of a person must leave at least one person who is an administrator. An agent with the administrator scope may
    remove the last one, since the agent remains. Raises Conflict (`last_administrator`).
    """

    def run(act: Act) -> T:
        caller = call.prove(act)
        note_caller(act, caller)
        has_administrator = caller.kind == "person" and roles.has_holder(act.tx, ADMINISTRATOR)
        done = flow(act)
        if has_administrator and not roles.has_holder(act.tx, ADMINISTRATOR):
            raise Conflict(
                "no other person would be an administrator",
                hint="grant another person the role first: ostiary role grant NAME administrator",
                code="last_administrator",
            )
        return done

    return await act(call.world, action, run, request=call.request_id, again=again, network=call.network)


def note(act: Act, *, object: str, owner: str | None = None, **detail: Any) -> None:
    """Record the object of the act in its entry; called before any refusal, so that refused entries name the object
    too.
    """
    act.entry.object = object
    if act.entry.owner is None:
        act.entry.owner = owner
    act.entry.detail = {**(act.entry.detail or {}), **{name: value for name, value in detail.items() if value}}


def check_may(act: Act, caller: Caller | None, verb: Verb, agent: Agent) -> None:
    """Check that the caller is an administrator, or is accountable for the agent and only stops it. Raises Forbidden.

    `None` is the server itself: an expiry, or a detector.
    """
    if caller is None or caller.is_admin:
        return
    if verb in OWNER_MAY and answers_for(act.tx, caller.id, agent):
        return
    raise Forbidden(
        f"you may not {verb} the agent `{agent.name}`",
        hint="the owner may suspend the agent; an administrator may do all",
    )


def check_admin(caller: Caller | None) -> None:
    """Check that the caller is an administrator, or the server itself (None). Raises Forbidden."""
    if caller is not None and not caller.is_admin:
        raise Forbidden("only administrators may do this", hint=f"the scope {ADMIN} is required")


def answers_for(reader: Reader, person: str, agent: Agent, *, deputies: bool = False) -> bool:
    """Return whether the person is the owner of the agent, a member of the team that owns it, or the deputy of
    either.
    """
    if person == agent.owner or owners.is_member(reader, agent.owner, person):
        return True
    owner = owners.owner(reader, agent.owner) if deputies else None
    return deputies and person in (agent.deputy, owner.deputy if owner is not None else None)
