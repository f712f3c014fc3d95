"""Rules for a child task: its access is narrower than that of its parent, and its agent may follow the agents above in
the delegation chain.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ostiary.authorization import bounds
from ostiary.authorization.claims import MAX_LINKS
from ostiary.protocol.errors import Forbidden
from ostiaryd.registry.model import Agent
from ostiaryd.tasks.model.task import Task


def put_under(task: Task, parent: Task) -> Task:
    """Return the task narrowed to its parent: scopes, bounds and end lie within those of the parent, and person and
    intent are those of the parent.

    Raises Forbidden for a scope that the parent lacks or another person, InvalidDetails if the bounds go beyond its
    bounds.
    """
    if extra := task.scopes - parent.scopes:
        scopes = " ".join(sorted(extra))
        raise Forbidden(
            f"the task above lacks the scopes {scopes}", hint="leave the scopes out: a task only narrows", code="widens"
        )
    if task.person not in (None, parent.person):
        raise Forbidden(
            "the task above is not on behalf of this person", hint="leave `on_behalf_of` out", code="widens"
        )
    ends = [end for end in (task.expires_at, parent.expires_at) if end is not None]
    return replace(
        task,
        parent=parent.task_id,
        depth=parent.depth + 1,
        person=parent.person,
        intent=parent.intent,
        memory=parent.memory,
        bounds=bounds.narrow(parent.bounds, task.bounds) if parent.bounds else task.bounds,
        expires_at=min(ends, default=None),
    )


def check_line(doer: Agent, above: Sequence[Agent]) -> None:
    """Check that the agent `doer` may follow the agents `above` in a delegation chain. `above` begins with the nearest
    agent, and has one agent for each task above.

    Raises Forbidden if `doer` is in the chain already (other than as the nearest agent), for another segment, and for a
    chain that is longer than `MAX_LINKS` tasks or than one of the agents permits.
    """
    if len(above) > MAX_LINKS:
        raise Forbidden(
            f"the delegation chain has more than {MAX_LINKS} tasks",
            hint="let an agent nearer to the first task delegate",
            code="too_deep",
        )
    line = list({agent.agent_id: agent for agent in above}.values())
    if doer.agent_id == line[0].agent_id:
        line = line[1:]
    elif any(agent.agent_id == doer.agent_id for agent in line):
        raise Forbidden(
            f"`{doer.name}` is already in the delegation chain",
            hint="an agent can be in a delegation chain only once",
            code="loop",
        )
    for distance, agent in enumerate(line, 1):
        if agent.segment != doer.segment:
            raise Forbidden(
                f"`{doer.name}` is in another segment than `{agent.name}`",
                hint="a task cannot be delegated to another segment",
                code="widens",
            )
        if distance > agent.max_depth:
            raise Forbidden(
                f"`{agent.name}` allows at most {agent.max_depth} agents after it in a delegation chain",
                hint=f"permit more with `ostiary agent depth {agent.name} N`",
                code="too_deep",
            )
