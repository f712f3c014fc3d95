"""The kill switch: stop an agent, a task, all agents of an owner, a resource, a segment, a model, or everything.

One fact stops all present and future members. A single agent is quarantined, with an incident that waits for a person.
Agents of administrators are stopped by name only, so that an administrator can still lift the stop.
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
    """Stop the named subject until the stop is lifted; for an agent, return its incident.

    Raises NotFound, Invalid, Conflict (`stopped_already`, `would_lock_out`).
    """
    registry.note(act, object=name[:256], kill=target, why=why[:500])
    check_text(why, of="reason", limit=500)
    if target == "agent":
        return isolate(act, name, says=f"stopped by hand: {why}", source=f"kill by {by.name}")
    registry.stop(act, target, _value(act.tx, target, name), why=why, by=by.id)
    return None


def let_go(act: Act, target: Killed, name: str, *, why: str) -> None:
    """Lift a stop; tokens that have not ended are accepted again. Raises NotFound, Conflict, Invalid."""
    registry.note(act, object=name[:256], kill=target, why=why[:500])
    check_text(why, of="reason", limit=500)
    if target == "agent":
        raise Conflict("only a person can release an agent", hint="ostiary incident list", code="awaits_person")
    stopped = next((one for one in registry.list_stops(act.tx) if (one.target_kind, one.value) == (target, name)), None)
    if stopped is not None and stopped.incident is not None:
        hint = f"ostiary incident release {stopped.incident} --as PERSON.json --reason WHY"
        raise Conflict("the agent is quarantined until a person decides", hint=hint, code="awaits_person")
    registry.lift_stop(act, target, name if stopped is not None else _value(act.tx, target, name))


def _value(reader: Reader, target: What, name: str) -> str:
    """Return the value by which tokens name the subject. Raises NotFound, Invalid, Conflict."""
    match target:
        case "task":
            return tasks.find_task(reader, name).task_id
        case "owner":
            return registry.find_owner(reader, name).id
        case "resource":
            resource = registry.find_resource(reader, name)
            if resource.uri == f"{registry.get_public_url(reader)}/api/v1":
                hint = "to stop all access, stop `everything`"
                raise Conflict("a stop of the server's own API could not be lifted", hint=hint, code="would_lock_out")
            return resource.uri
        case "everything":
            if name:
                raise Invalid("`everything` takes no name", hint="leave out the name")
            return ""
        case "segment" | "model":
            return check_text(name, of=target, limit=100)
