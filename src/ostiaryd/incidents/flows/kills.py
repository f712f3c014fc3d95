"""The kill switch: stop an agent, a task, all agents of an owner, a resource, a segment, a model, or everything.

One fact in the feed stops all present and future agents, tasks and calls that the stop covers. A single agent is
quarantined, with an incident that waits for a person. An administrator's agent is stopped only if the stop names the
agent, so that an administrator can still lift the other stops. Such a stop is never refused, not even if no person has
a key to release the agent: stopping always works.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from ostiary.decision.access.stops import What
from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ground.database import Reader
from ostiaryd.incidents.flows.incidents import isolate
from ostiaryd.incidents.model.incidents import Incident
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller, check_text
from ostiaryd.tasks import flows as tasks

Killed: TypeAlias = What | Literal["agent"]


def kill(act: Act, target: Killed, name: str, *, why: str, by: Caller) -> Incident | None:
    """Stop the named subject (an agent, a task, an owner's agents, a resource, a segment, a model or everything) until
    the stop is lifted. Return the incident for an agent, and None for any other subject.

    Raises NotFound for an unknown subject, Invalid for a name or a reason that is not valid, Conflict for a subject
    that is stopped already (`stopped_already`), and for the resource of the server's own API (`would_lock_out`).
    """
    registry.fill_entry(act, object=name[:256], kill=target, why=why[:500])
    check_text(why, of="reason", limit=500)
    if target == "agent":
        return isolate(act, name, says=f"stopped by hand: {why}", source=f"kill by {by.name}")
    registry.stop(act, target, _value(act.tx, target, name), why=why, by=by.id)
    return None


def let_go(act: Act, target: Killed, name: str, *, why: str) -> None:
    """Lift a stop: guards accept the subject's tokens again, unless the tokens have ended meanwhile.

    Raises NotFound for an unknown subject; Conflict (`awaits_person`) for an agent and for a stop that an incident
    made, which a decision about the incident lifts; Invalid for a name or a reason that is not valid.
    """
    registry.fill_entry(act, object=name[:256], kill=target, why=why[:500])
    check_text(why, of="reason", limit=500)
    if target == "agent":
        hint = "find the incident with `ostiary incident list`"
        raise Conflict("only a person can release an agent", hint=hint, code="awaits_person")
    stopped = next((one for one in registry.list_stops(act.tx) if (one.target_kind, one.value) == (target, name)), None)
    if stopped is not None and stopped.incident is not None:
        hint = f"run: ostiary incident release {stopped.incident} --as PERSON.json --reason WHY"
        problem = "an incident made this stop, and a person must decide about the incident"
        raise Conflict(problem, hint=hint, code="awaits_person")
    registry.lift_stop(act, target, name if stopped is not None else _value(act.tx, target, name))


def _value(reader: Reader, target: What, name: str) -> str:
    """Return the value by which guards recognise the subject in tokens: an id, a resource URI, a segment or a model.
    Raises NotFound for an unknown subject, Invalid for a malformed or superfluous name, Conflict for the server's own
    API.
    """
    match target:
        case "task":
            return tasks.find_task(reader, name).task_id
        case "owner":
            return registry.find_owner(reader, name).id
        case "resource":
            resource = registry.find_resource(reader, name)
            if resource.uri == f"{registry.get_public_url(reader)}/api/v1":
                hint = "to stop all access, stop `everything`"
                problem = "the server's own API cannot be stopped, because no request could then lift the stop"
                raise Conflict(problem, hint=hint, code="would_lock_out")
            return resource.uri
        case "everything":
            if name:
                raise Invalid("a stop of `everything` must not have a name", hint="leave out the name")
            return ""
        case "segment" | "model":
            return check_text(name, of=target, limit=100)
