"""Questions to people as JSON under /api/v1. Times are seconds since the epoch.

People who have a key, and whoever may read everything, see all of them; an agent sees how its own stand. Answers are
taken from people alone.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ostiary.core.errors import Invalid
from ostiaryd.approvals import flows, store
from ostiaryd.approvals.model import Says
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http import NO_STORE, Call, Reply, Wire, reply
from ostiaryd.ground.pages import reply_page
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import APPROVE, SELF


class Said(msgspec.Struct, forbid_unknown_fields=True):
    reason: str
    covers: Literal["call", "task"] | None = None
    """what a yes is to; left out: as the question says"""


async def list_approvals(call: Call) -> Reply:
    """The newest first; `?state=open` those that wait. An agent gets its own."""
    state, now, by = call.query_one("state") or "all", call.world.now(), call.caller
    if state not in ("open", "all"):
        raise Invalid("`state` is `open` or `all`")
    agent = "" if flows.may_see_all(by) else by.id

    return await reply_page(
        call,
        "approvals",
        lambda reader, page: store.page(reader, agent=agent, is_open=state == "open", now=now, page=page),
        lambda reader, question: flows.show_briefly(reader, question, now=now),
        cursor=lambda question: question.approval_id,
        headers=[NO_STORE],
    )


async def show_approval(call: Call) -> Reply:
    """All of it to who may answer; how it stands to the agent that asked."""
    now, by = call.world.now(), call.caller

    def read(reader: Reader) -> dict[str, Any]:
        question = flows.may_see(reader, call.params["id"], by=by)
        return (flows.show if flows.may_see_all(by) else flows.show_briefly)(reader, question, now=now)

    return reply(await call.world.db.scan(read), headers=[NO_STORE])


def answer(says: Says) -> Wire:
    """The wire function that says that to a question."""

    async def wire(call: Call) -> Reply:
        id, said, world = call.params["id"], call.json(Said), call.world

        def run(act: Act) -> dict[str, Any]:
            question = flows.answer(
                act, id, says, reason=said.reason, by=call.caller, config=world.config, covers=said.covers
            )
            return flows.show_briefly(act.tx, question, now=act.now)

        return reply(await registry.act_as(call, f"approval.{says}", run), headers=[NO_STORE])

    wire.__doc__ = f"{says.capitalize()} what is asked, with a reason."
    return wire


ROUTES = (
    ("GET", "/api/v1/approvals", list_approvals, SELF),
    ("GET", "/api/v1/approvals/{id}", show_approval, SELF),
    ("POST", "/api/v1/approvals/{id}/approve", answer(Says.APPROVE), APPROVE),
    ("POST", "/api/v1/approvals/{id}/deny", answer(Says.DENY), APPROVE),
)
FOR_PEOPLE = frozenset({list_approvals, show_approval})
"""What people with a key may call of that which asks for no scope."""
