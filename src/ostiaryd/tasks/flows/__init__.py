"""What happens to tasks, and the one revoke that ends everything derived."""

from ostiaryd.tasks.flows.above import MAX_TREE, above, tree
from ostiaryd.tasks.flows.revoking import Kind, revoke
from ostiaryd.tasks.flows.show import show
from ostiaryd.tasks.flows.tasks import end, expire, expire_due, find_task, live, may_list, may_see, renew, start

__all__ = [
    "MAX_TREE",
    "Kind",
    "above",
    "end",
    "expire",
    "expire_due",
    "find_task",
    "live",
    "may_list",
    "may_see",
    "renew",
    "revoke",
    "show",
    "start",
    "tree",
]
