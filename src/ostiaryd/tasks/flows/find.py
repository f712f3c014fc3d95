"""Finding a task by its id."""

from __future__ import annotations

from ostiary.protocol.errors import NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.registry import flows as registry
from ostiaryd.tasks import store
from ostiaryd.tasks.model import Task, standing_agent, standing_task


def find_task(reader: Reader, id: str) -> Task:
    """Return a declared task, or the standing task of an agent, in any state. Raises NotFound if there is none."""
    if (task := store.tasks.get_task(reader, id)) is not None:
        return task
    if id.startswith("tk_") and (agent := registry.get_agent(reader, standing_agent(id))) is not None:
        return standing_task(agent)
    raise NotFound(f"there is no task {id[:70]!a}", hint="`ostiary task list` lists the declared tasks")
