"""The memory of a task for guards, which read and extend the memory under a live token for their own resource.

A guard can add only results of tools of its own resource. The catalogue states which of these tools return content of
untrusted sources, and the task states which documents the person endorsed.
"""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from ostiary.decision.access.facts import ReadyTool
from ostiary.decision.recall import Recall
from ostiary.protocol.errors import Forbidden
from ostiary.provenance.history import Met, PriorHistory
from ostiary.provenance.origins import LABEL_ROOM, LINK, RETIRED, SLOT, Memory, Origin, is_effect
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ledger.flows import Act
from ostiaryd.policy.flows import active_policies
from ostiaryd.policy.flows.resource_cache import prepared_resource
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Holding, Resource
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.flows import Remembered


def recall(reader: Reader, query: Recall, *, resource_id: str, keys: Keyring, now: int) -> Remembered:
    """Return the memory of the token's task (hashed words of its intent and of tool results). Raises Forbidden if the
    token is not live, not for this resource, or has no task.
    """
    _, task_id = registry.find_token(reader, query.token, registry.find_resource(reader, resource_id), now=now)
    return tasks.read_memory(reader, tasks.live(reader, task_id, now=now), keys)


def add_outputs(act: Act, query: Recall, *, resource_id: str) -> Remembered:
    """Add the results of a tool of this resource to the memory of the token's task, and return the memory.

    Raises Forbidden if the token is not live or not for this resource, if the task has no memory, if the catalogue has
    no such tool, or if a result claims an origin that the tool cannot return.
    """
    resource = registry.find_resource(act.tx, resource_id)
    act.entry.resource, act.entry.token = resource.uri, query.token
    act.entry.tool = f"{resource.name}/{query.tool}"
    _, task_id = registry.find_token(act.tx, query.token, resource, now=act.now)
    task = tasks.live(act.tx, task_id, now=act.now)
    act.entry.agent, act.entry.task = task.agent, task.task_id
    remembered = tasks.add_output(act, task, query.parts)
    _check(act.tx, query, resource, remembered.memory)
    count = Counter[str]()
    for part in query.parts:
        count["label" if part.kinds in LABEL_ROOM else Origin(part.origin).name.lower()] += len(part.words)
    act.entry.detail = {"memory": task.memory, "seq": remembered.seq, "bytes": dict(count)}
    return remembered


def past(reader: Reader, query: Recall, *, resource_id: str, keys: Keyring, now: int) -> PriorHistory:
    """Return the earlier allowed calls of the token's task and agent, with the recipients and payees of the owner's
    agents if a policy reads them. Raises Forbidden if the token is not live or not for this resource.
    """
    holding, task_id = registry.find_token(reader, query.token, registry.find_resource(reader, resource_id), now=now)
    met = _met(reader, _looked_up(reader, holding), keys)
    task = tasks.live(reader, task_id, now=now)
    return tasks.read_history(reader, task, keys, agent=holding.agent, now=now, met=met)


def happen(tx: Tx, query: Recall, *, resource_id: str) -> tuple[PriorHistory, bool]:
    """Add a call that a guard is about to allow to the history of the token's task and agent, and the objects that an
    earlier call created. Return the history after the addition, and whether the call was added (True for a query
    without a call). The call is added only if the guard has the newest history. This function writes no ledger entry,
    because the guard's report about the call will. Raises Forbidden if the token is not live or not for this resource,
    or if the catalogue has no such tool or does not declare that the tool creates objects.
    """
    resource = registry.find_resource(tx, resource_id)
    holding, task_id = registry.find_token(tx, query.token, resource, now=tx.now)
    task, ready = tasks.live(tx, task_id, now=tx.now), _find_tool(tx, resource, query.tool)
    owner = _looked_up(tx, holding)
    prior, is_taken = tasks.read_history(tx, task, tx.keys, agent=holding.agent, now=tx.now), True
    if query.made:
        if not ready.tool.creates:
            raise Forbidden("the catalogue does not declare that the tool creates objects", code="creates_nothing")
        tasks.record_created(tx, task, query.made)
    if query.next is not None:
        is_taken = query.past is not None and (query.past.seq, query.past.day) == (prior.seq, prior.day)
        if is_taken:
            done = replace(ready.plan.call, recipients=query.next.recipients, is_more=query.next.is_more)
            tasks.record_call(tx, task, done, agent=holding.agent)
            if owner:
                tasks.add_counterparts(tx, owner, query.next.met)
    met = _met(tx, owner, tx.keys)
    return tasks.read_history(tx, task, tx.keys, agent=holding.agent, now=tx.now, met=met), is_taken


def _looked_up(reader: Reader, holding: Holding) -> str:
    """Return the owner of the token's agent if an active policy reads the counterparts of the owner's agents; otherwise
    an empty text.
    """
    return registry.find_agent(reader, holding.agent).owner if active_policies(reader).reads_counterparts else ""


def _met(reader: Reader, owner: str, keys: Keyring) -> Met | None:
    return tasks.counterparts(reader, owner, keys) if owner else None


def _find_tool(reader: Reader, resource: Resource, name: str) -> ReadyTool:
    if (ready := prepared_resource(reader, resource).tools.get(name)) is None:
        raise Forbidden(f"the catalogue of `{resource.name}` has no tool {name[:128]!a}", code="unknown_tool")
    return ready


def _check(reader: Reader, query: Recall, resource: Resource, memory: Memory) -> None:
    ready = _find_tool(reader, resource, query.tool)
    for part in query.parts:
        origin = Origin(part.origin)
        if origin is Origin.ENDORSED:
            kinds = 0 if part.kinds == RETIRED else part.kinds  # retired values are not stored
            if not any(one.tool == ready.uid.id and not kinds & ~one.kinds for one in memory.documents):
                raise Forbidden(
                    f"the person of the task did not endorse a document of `{ready.uid.id}` for these kinds of values",
                    code="not_endorsed",
                )
        elif ready.tool.is_outside and origin not in (Origin.KNOWN, Origin.OUTSIDE) and part.kinds != SLOT:
            raise Forbidden(
                f"the results of `{ready.uid.id}` come from an untrusted source and cannot have the origin `{origin}`",
                hint="update the guard: its catalogue of the resource differs from the catalogue of the server",
                code="outside",
            )
        elif part.kinds in LABEL_ROOM:  # labels make no value more trusted
            continue
        elif part.kinds in (LINK, SLOT) and is_effect(ready.tool):  # only tools that read can teach links and slots
            message = f"a guard can report links and record fields only of tools that read; `{ready.uid.id}` does not"
            raise Forbidden(message, code="outside")
