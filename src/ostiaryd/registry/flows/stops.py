"""The kill switch: stops, which stay in force until a person lifts them."""

from __future__ import annotations

from collections.abc import Iterable

from ostiary.decision.access.stops import What
from ostiary.protocol.errors import Conflict, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import store
from ostiaryd.registry.flows.callers import fill_entry
from ostiaryd.registry.flows.feed import queue_for_guards
from ostiaryd.registry.model import Stop, StopDelta, check_not_stopped
from ostiaryd.registry.model.stop import check_room, name_target


def stop(
    act: Act,
    target: What,
    value: str,
    *,
    why: str,
    by: str | None,
    incident: str | None = None,
    restores: bool = False,
) -> Stop:
    """Put a stop on a target, and return it. `target` is the kind (task, owner, resource, segment, model, or
    everything), and `value` the id, URI or name, empty for everything. `by` is the person or client; None for the
    server.

    The stop is in force from the commit of this act. Raises Conflict if the target is already stopped
    (`stopped_already`) or the limit of stops is reached (`too_many_stops`). The limit does not apply to a stop on
    everything, nor to a stop that the database had lost and that is put again (`restores`).
    """
    fill_entry(act, object=value or target, stop=target, value=value, why=why, incident=incident)
    if target != "everything" and not restores:
        check_room(store.stops.list_stops(act.tx), is_ours=by is None)
    made = Stop(target_kind=target, value=value, since=act.now, said_by=by, why=why, incident=incident)
    if not store.stops.put(act.tx, made):
        raise Conflict(
            f"{name_target(target, value)} is already stopped",
            hint="list the stops: ostiary kill list",
            code="stopped_already",
        )
    queue_for_guards(act, StopDelta(target, value))
    return made


def lift_stop(act: Act, target: What, value: str) -> None:
    """Lift a stop. Tokens that have not expired are accepted again. Raises NotFound if there is no such stop."""
    fill_entry(act, object=value or target, stop=target, value=value)
    if not store.stops.delete(act.tx, target, value):
        raise NotFound(f"{name_target(target, value)} is not stopped", hint="list the stops: ostiary kill list")
    queue_for_guards(act, StopDelta(target, value, is_lifted=True))


def check_none_stopped(reader: Reader, target: What, values: Iterable[str | None]) -> None:
    """Check that the kill switch stops none of these targets. `target` is their kind, such as `task`; `values` are
    their ids, URIs or names, of which None is skipped. Raises Forbidden otherwise.
    """
    check_not_stopped(store.stops.list_stops(reader), [(target, value) for value in values if value is not None])


def check_person_not_stopped(reader: Reader, person: str) -> None:
    """Check that neither a stop on this person as owner nor a stop on everything is in force. Raises Forbidden
    otherwise.
    """
    check_not_stopped(store.stops.list_stops(reader), [("owner", person), ("everything", "")])
