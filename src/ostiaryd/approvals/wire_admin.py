"""Questions to people as JSON under /api/v1. Times are seconds since the epoch.

People who have a key, and whoever may read everything, see all of them; an agent sees how its own stand. Answers are
taken from people alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from ostiary.protocol.errors import Conflict, Forbidden, Invalid, NotFound
from ostiaryd.approvals import flows, store
from ostiaryd.approvals.model import MAX_OPEN_OF_AGENT, Says
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, Wire, reply
from ostiaryd.ground.http.pages import reply_page
from ostiaryd.ground.http.routes import Route
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import APPROVE, READ, SELF


class Said(msgspec.Struct, forbid_unknown_fields=True):
    reason: str
    covers: Literal["call", "task"] | None = None
    """what a yes is to; left out: as the question says"""
    strike: list[int] = []
    """lines of a plan, from 1, to which a yes is not"""


class Answers(msgspec.Struct, forbid_unknown_fields=True):
    reason: str
    approve: list[str] = []
    deny: list[str] = []
    covers: Literal["call", "task"] | None = None


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
                act,
                id,
                says,
                reason=said.reason,
                by=call.caller,
                config=world.config,
                covers=said.covers,
                strike=said.strike,
            )
            return flows.show_briefly(act.tx, question, now=act.now)

        return reply(await registry.act_as(call, f"approval.{says}", run), headers=[NO_STORE])

    wire.__doc__ = f"{says.capitalize()} what is asked, with a reason."
    return wire


async def answer_all(call: Call) -> Reply:
    """Answer several questions as one, each in its own act: how each stands, or why it could not be answered."""
    said, world = call.json(Answers), call.world
    ids = [*said.approve, *said.deny]
    if not 1 <= len(ids) <= MAX_OPEN_OF_AGENT or len(set(ids)) < len(ids):
        raise Invalid(f"1 to {MAX_OPEN_OF_AGENT} questions are answered at once, each of them once")

    def run(id: str, says: Says) -> Callable[[Act], dict[str, Any]]:
        covers = said.covers if says is Says.APPROVE else None
        return lambda act: flows.show_briefly(
            act.tx,
            flows.answer(act, id, says, reason=said.reason, by=call.caller, config=world.config, covers=covers),
            now=act.now,
        )

    told = list[dict[str, Any]]()
    for says, some in ((Says.DENY, said.deny), (Says.APPROVE, said.approve)):
        for id in some:
            try:
                told.append(await registry.act_as(call, f"approval.{says}", run(id, says)))
            except (Invalid, Forbidden, Conflict, NotFound) as refusal:
                told.append({"approval_id": id, "error": refusal.code, "message": refusal.message})
    return reply({"answers": told}, headers=[NO_STORE])


async def show_waiting(call: Call) -> Reply:
    """All questions of a task that wait, as one: in plain words, and each whole."""
    task, now = call.params["id"], call.world.now()
    if not flows.may_see_all(call.caller):
        raise Forbidden("people who answer see what waits", hint="ostiary person create NAME --generate-key FILE")
    found = await call.world.db.scan(lambda reader: flows.show_waiting(reader, task, now=now))
    return reply(found, headers=[NO_STORE])


async def ask_plan(call: Call) -> Reply:
    """Ask once what the task will probably do: 202 with the question, or 200 without one where it would save none."""
    world = call.world

    def run(act: Act) -> dict[str, Any] | None:
        question = flows.ask_plan(act, call.params["id"], by=call.caller, config=world.config)
        return None if question is None else flows.show_briefly(act.tx, question, now=act.now)

    asked = await registry.act_as(call, "approval.ask", run)
    return reply({"question": asked}, status=200 if asked is None else 202, headers=[NO_STORE])


async def propose(call: Call) -> Reply:
    """What people always agreed to of that agent's calls, each with the approvals it rests on."""
    now, world = call.world.now(), call.world
    name = call.params["name"]
    found = await world.db.scan(lambda reader: flows.propose(reader, name, now=now, config=world.config))
    return reply({"proposals": found}, headers=[NO_STORE])


ROUTES = (
    Route("GET", "/api/v1/approvals", list_approvals, SELF, allows_people=True),
    Route("GET", "/api/v1/approvals/{id}", show_approval, SELF, allows_people=True),
    Route("POST", "/api/v1/approvals/{id}/approve", answer(Says.APPROVE), APPROVE, body=Said),
    Route("POST", "/api/v1/approvals/{id}/deny", answer(Says.DENY), APPROVE, body=Said, stops=True),
    Route("POST", "/api/v1/approvals/answers", answer_all, APPROVE, body=Answers),
    Route("GET", "/api/v1/tasks/{id}/approvals", show_waiting, SELF, allows_people=True),
    Route("POST", "/api/v1/tasks/{id}/plan-question", ask_plan, SELF),
    Route("GET", "/api/v1/agents/{name}/proposals", propose, READ),
)
