"""Holders of certificates: the holder's name, and the stop of the kill switch that puts a certificate on hold."""

from __future__ import annotations

from ostiaryd.ground.database import Reader
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Stop, find_stop, is_person_id, names_of_agent
from ostiaryd.tasks import flows as tasks


def name_of_holder(reader: Reader, holder: str | None) -> str:
    """Return the name of an agent or a person by its id; the id itself if the holder is unknown; an empty text for the
    server.
    """
    if holder is None:
        return ""
    record = registry.get_person(reader, holder) if is_person_id(holder) else registry.get_agent(reader, holder)
    return holder if record is None else record.name


def find_hold(reader: Reader, holder: str | None, task: str | None) -> Stop | None:
    """Return the oldest stop of the kill switch that puts a certificate on hold; None if there is none.

    A stop applies to a certificate if it covers the holder, the task of the certificate, the person of the task, or a
    task or agent above that task. No stop applies to certificates of the server itself.
    """
    stops = registry.list_stops(reader)
    if not stops or holder is None:
        return None
    if is_person_id(holder):
        return find_stop(stops, [("owner", holder), ("everything", "")])
    names, agents = [("task", task or "")], [holder]
    if task is not None and (declared := tasks.get_task(reader, task)) is not None:
        names.append(("owner", declared.person or ""))
        above = tasks.above(reader, declared)
        names += [("task", one.task_id) for one in above]
        agents += [one.agent for one in above]
    for id in agents:
        if (agent := registry.get_agent(reader, id)) is not None:
            names += names_of_agent(agent)
    return find_stop(stops, names)
