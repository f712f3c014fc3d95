"""The behaviour of an agent, as people see it: granted scopes beside used scopes, and the use of each tool beside its
use by peers.

The source is the profiles that guards use. For each tool of a resource, a profile counts the agent's recent tasks that
called the tool. Profiles drop tools that were seldom called, and agents that were inactive for 90 days.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from ostiary.provenance.noticing import Profile
from ostiaryd.feed import store
from ostiaryd.feed.flows.profiles import unpack_profile
from ostiaryd.ground.database import Reader
from ostiaryd.ledger import flows as ledger
from ostiaryd.policy.flows.resource_cache import prepared_resource
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Resource

MAX_RESOURCES = 50
MAX_PEERS = 200
DAY = 86_400_000_000
DAYS = 14
MAX_ACTS = 2000


class ScopeUse(TypedDict):
    """A granted scope and its use. `used`: a recent task called a tool that needs the scope. `unused`: no recent task
    did, although guards reported calls of the agent at the resource; or the scope's resource is not registered, and
    guards reported calls of the agent elsewhere. `unknown`: guards reported no call of the agent.
    """

    scope: str
    use: Literal["used", "unused", "unknown"]


class ToolUse(TypedDict):
    """The use of one tool by one agent. `tasks`: the number of recent tasks that called the tool. `untrusted`: among
    these, the number of tasks with values from an untrusted source or the number with values of unknown origin,
    whichever is larger. `peers`: the number of peers that use the tool.
    """

    tool: str
    scope: str
    tasks: int
    untrusted: int
    peers: int


class ResourceUse(TypedDict):
    """The use of one resource by one agent. `tasks`: the number of the agent's recent tasks at the resource. `peers`:
    the number of peers, which are the other agents of the same kind among the 200 last active agents at the resource.
    """

    resource: str
    tasks: int
    peers: int
    tools: list[ToolUse]


class BehaviourBody(TypedDict):
    """The behaviour of one agent. `days`: the number of the agent's acts in each of the last 14 periods of 24 hours,
    the oldest first; the last period ends now. Each number stops at 2,000.
    """

    scopes: list[ScopeUse]
    resources: list[ResourceUse]
    days: list[int]


def describe_behaviour(reader: Reader, agent: Agent, *, now: int) -> BehaviourBody:
    """Return the behaviour of an agent at the resources that its scopes name: at most 50 resources, sorted by name."""
    scopes, used, unregistered = sorted(agent.scopes), set[str](), set[str]()
    resources: list[ResourceUse] = []
    for name in sorted({scope.partition(":")[0] for scope in scopes}):
        if (resource := registry.get_resource(reader, name)) is None or resource.name != name:
            unregistered.add(name)
            continue
        if len(resources) == MAX_RESOURCES:
            continue
        at_resource = _describe_resource(reader, agent, resource)
        resources.append(at_resource)
        used.update(tool["scope"] for tool in at_resource["tools"] if tool["tasks"])
    called = {one["resource"] for one in resources if one["tasks"] and one["tools"]}

    def judge(scope: str) -> Literal["used", "unused", "unknown"]:
        resource = scope.partition(":")[0]
        if scope in used:
            return "used"
        return "unused" if resource in called or (called and resource in unregistered) else "unknown"

    return {
        "scopes": [{"scope": scope, "use": judge(scope)} for scope in scopes],
        "resources": [one for one in resources if one["tools"]],
        "days": [
            ledger.count_acts_of_agent(reader, agent.agent_id, end - DAY, end, most=MAX_ACTS)
            for end in range(now + 1 - (DAYS - 1) * DAY, now + 2, DAY)
        ],
    }


def _describe_resource(reader: Reader, agent: Agent, resource: Resource) -> ResourceUse:
    """Return the agent's use of a resource, with each tool that the agent's scopes allow or that the agent has
    called.
    """
    row = store.profile(reader, agent.agent_id, resource.resource_id)
    own, peers = unpack_profile(b"" if row is None else row[0]), _list_peers(reader, agent, resource)
    tools: list[ToolUse] = []
    for ready in prepared_resource(reader, resource).tools.values():
        habit = own.habit(ready.uid.id)
        if ready.scope in agent.scopes or habit.tasks:
            tools.append(
                {
                    "tool": ready.tool.name,
                    "scope": ready.scope,
                    "tasks": habit.tasks,
                    "untrusted": max(habit.outside, habit.nowhere),
                    "peers": sum(peer.habit(ready.uid.id).tasks > 0 for peer in peers),
                }
            )
    tools.sort(key=lambda one: (-one["tasks"], one["tool"]))
    return {"resource": resource.name, "tasks": own.tasks, "peers": len(peers), "tools": tools}


def _list_peers(reader: Reader, agent: Agent, resource: Resource) -> list[Profile]:
    """Return the profiles of an agent's peers at a resource: agents of the same kind among the 200 last active agents
    there.
    """
    peers = []
    for id, packed in store.profiles(reader, resource.resource_id, limit=MAX_PEERS):
        if id != agent.agent_id and (other := registry.get_agent(reader, id)) is not None and other.kind is agent.kind:
            peers.append(unpack_profile(packed))
    return peers
