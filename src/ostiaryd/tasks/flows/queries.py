"""Functions with which other packages read tasks and elevations, and change them within their own acts.

Each is a function of the store, under a name that is unique in the package.
"""

from ostiaryd.tasks.store.elevations import get_eligible_scopes, list_elevations, list_emergency_elevations
from ostiaryd.tasks.store.tasks import end_all_tasks, get_task, list_ended_tasks, list_live_tasks

__all__ = [
    "end_all_tasks",
    "get_eligible_scopes",
    "get_task",
    "list_elevations",
    "list_emergency_elevations",
    "list_ended_tasks",
    "list_live_tasks",
]
