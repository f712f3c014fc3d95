"""A stop of the kill switch: one record, which applies to any number of agents, including agents that are registered
later.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ostiary.decision.access.stops import What
from ostiary.protocol.errors import Conflict, Forbidden
from ostiaryd.registry.model.agent import Agent
from ostiaryd.registry.model.caller import ADMIN

MAX_STOPS = 1000
"""Maximum number of stops of persons and clients in force. Stops of the server, which include the stops that a recovery
carried out again, take no room from them.
"""
MAX_OURS = 500
"""Number of stops in force from which on the server itself adds no stop."""


class Stop(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A stop in force.

    `value`: the id of a task or an owner, the URI of a resource, the name of a segment or a model; empty for
    `everything`. `said_by`: the person or client that put the stop; None for the server itself. `incident`: the
    incident for which the server put the stop; None for none.
    """

    target_kind: What
    value: str
    since: int
    said_by: str | None
    why: str
    incident: str | None = None


class StopDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="stop"):
    """The message to guards about a new or a lifted stop."""

    target_kind: What = msgspec.field(name="what")
    value: str
    is_lifted: bool = False


def name_target(kind: str, value: str) -> str:
    """Return the subject of a stop as text for people, for example `owner ada`."""
    return f"{kind} {value}".rstrip()


def find_stop(stops: list[Stop], names: Iterable[tuple[str, str]]) -> Stop | None:
    """Return the oldest stop that names one of the pairs (kind, value); None if none does."""
    named = set(names)
    naming = (stop for stop in stops if (stop.target_kind, stop.value) in named)
    return min(naming, key=lambda stop: stop.since, default=None)


def check_not_stopped(stops: list[Stop], names: Iterable[tuple[str, str]]) -> None:
    """Check that no stop names one of the pairs (kind, value). Raises Forbidden otherwise."""
    if stops and (stop := find_stop(stops, names)) is not None:
        label = name_target(stop.target_kind, stop.value)
        raise Forbidden(f"the kill switch stops {label}", hint="ask an administrator to lift the stop", code="stopped")


def names_of_agent(agent: Agent) -> list[tuple[str, str]]:
    """Return the subjects (kind, value) whose stops stop an agent: its owner, its segment, its model, and everything.
    For an administrator the list is empty, so that an administrator can always lift stops.
    """
    if ADMIN in agent.scopes:
        return []
    return [("owner", agent.owner), ("segment", agent.segment), ("model", agent.model), ("everything", "")]


def check_room(stops: list[Stop], *, is_ours: bool) -> None:
    """Check that the limits permit one more stop: of a person, or, with `is_ours`, of the server. Raises Conflict
    otherwise.
    """
    count = len(stops) if is_ours else sum(stop.said_by is not None for stop in stops)
    if count >= (MAX_OURS if is_ours else MAX_STOPS):
        raise Conflict(
            f"{count} stops{'' if is_ours else ' of persons and clients'} are in force, which is the limit",
            hint="list the stops (`ostiary kill list`), and lift one: ostiary kill lift KIND NAME --reason ..",
            code="too_many_stops",
        )
