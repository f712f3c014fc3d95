"""Proposals of policies that permit calls which persons have always approved. Only a person can activate a policy.

A proposal covers exactly the tool and the counterpart, with the largest approved amount as its limit, and names the
approvals that support it. Repeated questions within a task add no support.
"""

from __future__ import annotations

from typing import Any, TypedDict

from ostiary.provenance.extent import may_vary
from ostiaryd.approvals.flows.past import DAY, Agreed, list_approved_calls
from ostiaryd.approvals.flows.wording import visible_json
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent


class Proposal(TypedDict):
    """A proposed policy that would permit calls which persons approved repeatedly and never denied. `named`: the values
    of the arguments that all these calls share; `amounts`: the largest approved amount of each amount argument;
    `others`: further arguments of the tool, which the approved calls left out; `occasions`: the number of different
    tasks (days, for the standing task) in which people approved.
    """

    agent: str
    agent_id: str
    tool: str
    effect: str
    named: dict[str, Any]
    amounts: dict[str, Any]
    others: list[str]
    is_closed: bool
    types: dict[str, Any]
    policies: list[str]
    occasions: int
    approvals: list[str]
    words: str


def propose(reader: Reader, agent: str, *, now: int, config: Config) -> list[Proposal]:
    """Return proposals of policies for an agent (name or id), from calls that people approved on at least
    `approvals_to_propose` occasions and never denied. Raises NotFound for an unknown agent.
    """
    agent_row = registry.find_agent(reader, agent)
    since = now - config.replay_days * DAY
    return [
        _proposal(agent_row, one)
        for one in list_approved_calls(reader, agent_row.agent_id, since=since)
        if len(one.occasions) >= config.approvals_to_propose
    ]


def _proposal(agent: Agent, one: Agreed) -> Proposal:
    tool, count = one.ready.tool, len(one.occasions)
    properties = tool.arguments.get("properties", {})
    conditions = [f"{name} = {visible_json(value)}" for name, value in one.named.items()]
    conditions += [f"{name} up to {amount}" for name, amount in one.amounts.items()]
    return {
        "agent": agent.name,
        "agent_id": agent.agent_id,
        "tool": one.ready.uid.id,
        "effect": tool.effect.value,
        "named": one.named,
        "amounts": one.amounts,
        "others": sorted(
            name for name in properties if name not in one.named | one.amounts and not may_vary(tool, name)
        ),
        "is_closed": tool.arguments.get("additionalProperties") is False,
        "types": {name: properties.get(name, {}).get("type") for name in one.amounts},
        "policies": sorted(one.policies),
        "occasions": count,
        "approvals": one.approvals,
        "words": f"`{agent.name}` calls {one.ready.uid.id} with {', '.join(conditions)}: "
        f"people approved these calls on {count} occasions, and denied none",
    }
