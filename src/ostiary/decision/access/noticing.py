"""What is noticed of a call before it runs, by what its agent usually does here, what its task was told so far, and
whom its arguments name (`ostiary.provenance.noticing.threats`). Of what only reads that is the last alone, and decoys.

It is asked before the policies are, so that it can count in their answer (`context.risk.call`), and of what is outside
the task, too: that an agent wants what it is not for tells most of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostiary.authorization.catalogue import Effect
from ostiary.authorization.cedar.values import Record
from ostiary.decision.access.facts import Facts, Principal, ReadyTool
from ostiary.provenance.noticing import NEW, Event, Noticed, Session, notice, traced
from ostiary.provenance.noticing.threats import find
from ostiary.provenance.origins import Memory


def noticed_of(
    principal: Principal,
    facts: Facts,
    ready: ReadyTool,
    arguments: Mapping[str, Any],
    *,
    session: Session,
    memory: Memory | None,
    beside: Record | None,
    now: int,
    why_not: str = "",
) -> tuple[Noticed, ...]:
    """`beside`: what is said of where its arguments came from, if it was judged; `why_not`: the code of what has denied
    it already.
    """
    found = find(arguments, facts.threats) if facts.threats else []
    tool, claims = ready.tool, principal.claims
    if tool.effect is Effect.READ and tool.canary is not True:
        return tuple(found)
    event = Event(
        at=now, action="tool.call", outcome="deny" if why_not else "allow", agent=claims.client_id, task=claims.task,
        resource=claims.aud, tool=ready.uid.id, effect=tool.effect.value, canary=tool.canary is True,
        reasons=(why_not,) if why_not else (), **traced(session, memory, tool, arguments, beside)._asdict(),
    )  # fmt: skip
    return (*notice(facts.profiles.get(claims.client_id, NEW), session, event), *found)
