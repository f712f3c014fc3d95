"""Unusual properties of a call before it runs: compared with the agent's usual behaviour at this resource, with the
content that its task has read, and with threat lists (`ostiary.provenance.noticing.threats`). For a tool that only
reads, only threat lists and decoys are checked.

This runs before the policies, so that it counts in `context.risk.call`, and also for calls outside the task: an attempt
to leave the task is the strongest sign.
"""

from __future__ import annotations

from ostiary.authorization.catalogue import Effect
from ostiary.authorization.cedar.values import Record
from ostiary.decision.access.facts import ReadyTool
from ostiary.decision.access.inputs import ResolvedCall
from ostiary.provenance.noticing import NEW, Event, Noticed, Session, notice, traced
from ostiary.provenance.noticing.threats import find
from ostiary.provenance.origins import CallValues, Memory


def noticed_of(
    call: ResolvedCall,
    ready: ReadyTool,
    session: Session,
    memory: Memory | None,
    origins: Record | None = None,
    values: CallValues | None = None,
    *,
    why_not: str = "",
) -> tuple[Noticed, ...]:
    """Return the findings of detectors about a call of a known tool.

    `origins`: the origins of the arguments in the context, and `values`: the values of the call, if they were
    determined; `why_not`: the reason code if the call is already denied.
    """
    arguments, facts = call.arguments, call.facts
    listed = find(arguments, facts.threats) if facts.threats else []
    tool, claims = ready.tool, call.principal.claims
    if tool.effect is Effect.READ and tool.canary is not True:
        return tuple(listed)
    flow = traced(session, memory, tool, arguments, origins, values)
    event = Event(
        at=call.now,
        action="tool.call",
        outcome="deny" if why_not else "allow",
        agent=claims.client_id,
        task=claims.task,
        resource=claims.aud,
        tool=ready.uid.id,
        effect=str(tool.effect),
        canary=tool.canary is True,
        reasons=(why_not,) if why_not else (),
        worst=flow.worst,
        links=flow.links,
        is_mixed=flow.is_mixed,
        values_in_text=flow.values_in_text,
        is_named=flow.is_named,
        signs=flow.signs,
    )
    return (*notice(facts.profiles.get(claims.client_id, NEW), session, event), *listed)
