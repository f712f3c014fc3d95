"""The route under /api/v1 that starts a task. It is in this package, because policies decide on the delegation of a
task to another agent.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ostiary.authorization.bounds import parse_details
from ostiary.authorization.budget import parse_limits
from ostiary.authorization.classes import check_known
from ostiary.protocol.errors import Forbidden
from ostiary.provenance.intent import parse_intent
from ostiaryd.ground.http.edge import Call, Reply, TooLarge, reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows
from ostiaryd.policy.flows.external_pdp import act_with_answers
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import SELF
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.flows.show import TaskDetail
from ostiaryd.tasks.model import DEFAULT_TTL_S, MAX_TASK_BYTES, Task, TaskSpec

MAX_BODY = 4 * MAX_TASK_BYTES
"""Maximum number of bytes of a request. A request can be longer than the task that it declares, such as by escapes."""


class NewTask(msgspec.Struct, forbid_unknown_fields=True):
    purpose: str
    agent: str | None = None
    """Name or id of the agent; if absent, the caller."""
    bounds: list[Any] = []
    data_classes: list[str] | None = None
    """Data classes that tools of the task may handle; sets `datatypes` in each of its bounds."""
    budget: list[Any] = []
    """Limits of the task, in the form of `ostiary.authorization.budget`."""
    intent: dict[str, Any] | None = None
    """The words of the person, in the form of `ostiary.provenance.intent`; they cannot be changed later."""
    scopes: list[str] | None = None
    on_behalf_of: str | None = None
    parent: str | None = None
    """Id of the task of which a part is delegated; if absent, a new task is declared."""
    ttl: int = DEFAULT_TTL_S
    heartbeat: int | None = None
    """Maximum seconds without a heartbeat of a holder of the task; after that, the task counts as lost."""
    end_with_last: bool = False


async def start_task(call: Call) -> Reply:
    """Declare a task, or with `parent` a part of a task.

    A part is delegated to the agent of the parent, or to another agent.
    """
    if len(call.body) > MAX_BODY:
        raise TooLarge(f"the request has more than {MAX_BODY} bytes", hint="name fewer tools, values or words")
    new = call.json(NewTask)
    classes = call.world.config.classes
    bounds, budget = parse_details(new.bounds, classes=classes), parse_limits(new.budget, classes=classes)
    intent = None if new.intent is None else parse_intent(new.intent)
    check_known(new.data_classes or (), classes)

    def start(act: Act) -> Task:
        task = tasks.start(
            act,
            TaskSpec(
                agent=new.agent or call.caller.id,
                purpose=new.purpose,
                bounds=bounds,
                budget=budget,
                intent=intent,
                data_classes=new.data_classes,
                scopes=new.scopes,
                on_behalf_of=new.on_behalf_of,
                ttl_s=new.ttl,
                parent=new.parent,
                heartbeat_s=new.heartbeat,
                ends_with_last=new.end_with_last,
                unregistered=call.world.config.resources == "any",
                by=call.caller,
            ),
        )
        if task.chain and task.chain[0].agent != task.agent:
            if call.caller.jkt is None:
                hint = "use a token that is bound to a key"
                raise Forbidden("a task cannot be delegated to another agent with a bearer token", hint=hint)
            giver, receiver = (registry.find_agent(act.tx, id) for id in (task.chain[0].agent, task.agent))
            flows.check_delegation(
                act,
                giver,
                receiver,
                flows.TaskChain(task.chain[0].task, task.chain[1:], task.person),
                scopes=task.scopes,
                details=task.bounds,
                depth=task.depth,
            )
        return task

    task = await act_with_answers(call.world, lambda retry: registry.act_as(call, "task.start", start, again=retry))
    return reply(tasks.show(call.world.db.read(), task, now=call.world.now()), status=201)


ROUTES = (
    Route(
        "POST",
        "/api/v1/tasks",
        start_task,
        SELF,
        body=NewTask,
        allows_people=True,
        grants=True,
        answers={201: TaskDetail},
    ),
)
