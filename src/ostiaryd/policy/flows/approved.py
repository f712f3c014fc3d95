"""A person's yes, as decisions need it: held with what must die with its agent and its task, spent by one call.

The room of the questions fills this table; here it is read where it is decided, in the same act.
"""

from __future__ import annotations

from ostiary.core.access.facts import ReadyTool
from ostiary.core.errors import Forbidden, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import store
from ostiaryd.policy.flows.answer import protected
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId, Holding, HoldingId, Resource
from ostiaryd.registry.store import holdings

KIND = "approval"
"""Of which kind of holding a yes is."""


def hold_approval(
    act: Act, id: str, *, agent: AgentId, task: str, digest: str, policies: list[str], until: int
) -> None:
    """From now on a yes is there for whatever has that digest. Raises Forbidden for an agent that is not active."""
    registry.hold(act, Holding(id=HoldingId(id), kind=KIND, agent=agent, task=task, expires_at=until))
    store.insert_approved(act.tx, id, digest=digest, policies=policies)


def spend_approval(act: Act, id: str, *, digest: str, call: str) -> frozenset[str]:
    """Spend a yes on that call, a number that its asker threw; the policies that it answers.

    Raises NotFound, Forbidden for the yes to something else (`approval_mismatch`), a spent one (`approval_spent`), and
    one that ended before (`approval_ended`).
    """
    registry.note(act, object=id, digest=digest)
    found, held = store.approved(act.tx, id), holdings.get(act.tx, id)
    if found is None:
        raise NotFound("there is no such approval, or nobody has said yes", code="unknown_approval")
    if found.digest != digest:
        raise Forbidden("that approval is not for this", hint="ask about this", code="approval_mismatch")
    if held is None or not held.is_live(act.now):
        raise Forbidden("the approval has ended", hint="ask again", code="approval_ended")
    if not store.spend_approved(act.tx, id, call=call):
        raise Forbidden("the approval was spent before", hint="it was good for one call", code="approval_spent")
    return found.policies


def ready_tool(reader: Reader, resource: Resource, tool: str) -> ReadyTool:
    """Raises NotFound."""
    if (ready := protected(reader, resource).tools.get(tool)) is None:
        raise NotFound(f"the catalogue of `{resource.name}` has no tool {tool[:128]!a}", code="unknown_tool")
    return ready
