"""The inputs of a decision: the caller, the resource, and the present state."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Set
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Literal, NamedTuple

import msgspec

from ostiary.authorization.bounds import ToolDetail, datatypes, parse_details
from ostiary.authorization.budget import Price, prices
from ostiary.authorization.catalogue import Catalogue, Tool
from ostiary.authorization.cedar.extensions import Datetime
from ostiary.authorization.cedar.render import render_record
from ostiary.authorization.cedar.values import Entities, Entity, Overlay, Record, Uid, entity
from ostiary.authorization.claims import AccessClaims, actors, scopes
from ostiary.decision.access.chain import agent_entity, chain_of
from ostiary.decision.access.chain_evaluator import ChainCache
from ostiary.decision.access.policies import CALL, Policies
from ostiary.decision.access.recorded import secrets_of
from ostiary.decision.access.restrictions import Restriction
from ostiary.decision.access.stops import Named, names_of
from ostiary.provenance.history import Plan, plan_of
from ostiary.provenance.noticing import Profile, Risk
from ostiary.provenance.noticing.threats import Threats

_encode = msgspec.json.Encoder().encode


class Principal:
    """A verified token, prepared once so that each of its calls is cheap. Cache the principal by the digest of the
    token.

    Its Cedar entity is `Agent::"ag_.."`, a member of its `Owner` and its `Segment`, with exactly the attributes that
    the token states.
    """

    __slots__ = (
        "_chain",
        "_covering",
        "_names",
        "_overlay",
        "_prices",
        "_recorded",
        "agents",
        "behind",
        "claims",
        "context",
        "details",
        "entity",
        "expires_at",
        "jkt",
        "keys",
        "links",
        "scopes",
        "tasks",
    )

    def __init__(self, claims: AccessClaims) -> None:
        """Parse the scopes and details of a token. Raises InvalidScope for malformed scopes, InvalidDetails for
        malformed details.
        """
        self.claims = claims
        self.scopes: frozenset[str] = scopes(claims)
        self.details: tuple[ToolDetail, ...] = parse_details(claims.authorization_details)
        self.expires_at = claims.exp * 1_000_000
        self.jkt = claims.cnf.jkt if claims.cnf else None
        bound_to = (claims.cnf.jkt, claims.cnf.certificate) if claims.cnf else ()
        self.keys = frozenset(filter(None, bound_to))
        """thumbprints of the keys and certificates that the token is bound to"""
        epochs = {link.agent: link.epoch for link in claims.chain} | {claims.client_id: claims.epoch}
        acted = actors(claims)
        self.behind = tuple(dict.fromkeys(agent for agent in (*acted, *epochs) if agent != claims.client_id))
        """ids of the agents through which the authority of the token was delegated, the nearest first, without the
        holder
        """
        chain = chain_of(claims.chain, holder=claims.client_id, acted=acted)
        self._chain = chain.behind
        self.links = tuple(agent.uid for agent in chain.behind)
        """entities of the agents in `behind`; policies must permit each of them"""
        self.agents = tuple((agent, epochs.get(agent)) for agent in (claims.client_id, *self.behind))
        """(agent id, epoch) of the holder of the token and of each agent in `behind`; the epoch is None if the token
        does not state it
        """
        self.tasks = tuple(dict.fromkeys((claims.task, *(link.task for link in claims.chain))))
        """ids of the token's task and of the tasks above it in the chain, without duplicates"""
        self.entity = agent_entity(
            claims.client_id, owner=claims.owner, segment=claims.segment, model=claims.model, risk_tier=claims.risk_tier
        )
        self.context: Record = {
            "subject": claims.sub,
            "task": claims.task,
            "acr": claims.acr,
            "amr": frozenset(claims.amr),
            "scopes": self.scopes,
            **chain.context,
        }
        if claims.auth_time is not None:
            self.context["auth_time"] = Datetime(claims.auth_time * 1000)
        classes = datatypes(detail for detail in self.details if claims.aud in detail.locations)
        if self.details and classes is not None:
            self.context["datatypes"] = frozenset(classes)
        self._covering: dict[str, tuple[frozenset[str], tuple[ToolDetail, ...]]] = {}
        self._prices: dict[str, tuple[frozenset[str], tuple[Price, ...]]] = {}
        self._overlay: tuple[Entities | None, Entities, ChainCache] = None, {}, {}
        self._recorded: msgspec.Raw | None = None
        self._names: frozenset[Named] | None = None

    def bounds(self, tool: str, classes: frozenset[str]) -> tuple[ToolDetail, ...]:
        """Return the details of the token that name this tool at its audience and permit the data classes of
        the tool.
        """
        cached = self._covering.get(tool)
        if cached is None or cached[0] is not classes:  # the catalogue may have changed
            details = tuple(one for one in self.details if one.covers(self.claims.aud, tool) and one.admits(classes))
            cached = self._covering[tool] = classes, details
        return cached[1]

    @property
    def names(self) -> frozenset[Named]:
        """Return the (kind, name) pairs by which the kill switch can stop the token: its task, owner, segment, model,
        person and audience, and these of the links of its chain.
        """
        if self._names is None:
            self._names = names_of(self.claims)
        return self._names

    @property
    def recorded(self) -> msgspec.Raw:
        """Return the members of the Cedar context that come from the token, as JSON for records. They are encoded
        once.
        """
        if self._recorded is None:
            self._recorded = msgspec.Raw(_encode(render_record(self.context)))
        return self._recorded

    def prices(self, tool: str, classes: frozenset[str]) -> tuple[Price, ...]:
        """Return the prices of a call of the tool (`bank/pay`) with these data classes, for the budgets of the
        token.
        """
        cached = self._prices.get(tool)
        if cached is None or cached[0] is not classes:
            cached = self._prices[tool] = classes, prices(self.claims.budgets, tool, classes)
        return cached[1]

    def entity_overlay(self, entities: Entities) -> tuple[Entities, ChainCache]:
        """Return (overlay, cache): `entities` extended by this agent and the agents behind it, and the cache of policy
        results for this chain. Both are stored for the next call with the same `entities`.
        """
        base, overlay, cache = self._overlay  # read at once, because other threads may replace it
        if base is not entities:
            overlay, cache = Overlay.of(entities, self.entity, *self._chain), {}
            self._overlay = entities, overlay, cache
        return overlay, cache


class ReadyTool(NamedTuple):
    tool: Tool
    uid: Uid
    scope: str
    type_: Callable[[Mapping[str, object]], Record]
    secrets: frozenset[str] | None
    """arguments that no record may contain; None: all"""
    classes: frozenset[str]
    """data classes that the tool handles"""
    class_names: list[str]
    """data classes, sorted"""
    presentation: frozenset[str]
    """arguments that determine only the form of the output, so that an approval need not name them"""
    plan: Plan
    """the instructions for storing calls of the tool in the history (`ostiary.provenance.history`)"""


class Protected:
    """A resource with its tools, prepared once per catalogue, with the Cedar entities of both, such as
    `Resource::"files"` and `Tool::"files/read_file"`.
    """

    __slots__ = ("catalogue_hash", "entities", "mode", "name", "segment", "tools", "uid", "uri")

    def __init__(
        self,
        *,
        name: str,
        uri: str,
        segment: str,
        catalogue: Catalogue | None,
        mode: Literal["enforce", "watch"] = "enforce",
        catalogue_hash: str = "",
    ) -> None:
        """Compile the schemas of a resource's tools; without a catalogue no tool is known. Raises Invalid for a schema
        that is not supported.
        """
        self.catalogue_hash = catalogue_hash
        self.name, self.uri, self.segment, self.mode = name, uri, segment, mode
        resource = resource_entity(name, uri=uri, segment=segment)
        self.uid = resource.uid
        self.tools: dict[str, ReadyTool] = {}
        self.entities: dict[Uid, Entity] = {CALL: entity(CALL), resource.uid: resource}
        for tool in catalogue.tools.values() if catalogue else ():
            assert catalogue is not None
            scope, classes = f"{name}:{tool.scope_class}", catalogue.classes(tool)
            made = _tool_entity(tool, scope=scope, classes=classes, resource=resource)
            self.entities[made.uid] = made
            hidden = secrets_of(tool, classes)
            self.tools[tool.name] = ReadyTool(
                tool,
                made.uid,
                scope,
                tool.typed.type_,
                hidden,
                classes,
                sorted(classes),
                frozenset(tool.presentation),
                plan_of(made.uid.id, tool, classes),
            )


class AgentStatus(NamedTuple):
    """An entry in the list of exceptions about agents: the agent's `state` is not active, or its tokens with an epoch
    below `epoch` are revoked.
    """

    state: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Facts:
    """The present state on which decisions at one resource depend: the resource, its policies, revocations,
    restrictions, risks and stops. The containers may belong to a running feed, which changes them; decisions only read
    them.
    """

    resource: Protected
    policies: Policies
    agents: Mapping[str, AgentStatus] = field(default_factory=lambda: MappingProxyType({}))
    """exceptions by agent id; any other agent is active, with epoch 0"""
    ended_tasks: Container[str] = frozenset()
    ended_tokens: Container[str] = frozenset()
    revoked_keys: Container[str] = frozenset()
    risks: Mapping[str, Risk] = field(default_factory=lambda: MappingProxyType({}))
    """risk by agent or task; absent means no risk"""
    threats: Threats = field(default_factory=lambda: MappingProxyType({}))
    restrictions: Mapping[str, tuple[Restriction, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """restrictions by agent, expired ones included"""
    secret_uses: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """agents for which an egress proxy has used secrets; the value is the time in microseconds until which the
    arguments of the agent's calls are searched for these secrets
    """
    stops: Set[Named] = frozenset()
    """the subjects that the kill switch has stopped"""
    profiles: Mapping[str, Profile] = field(default_factory=lambda: MappingProxyType({}))
    """usual behaviour at this resource, by agent; absent means unknown"""
    entities: Entities = field(init=False)
    """entities of the resource and of the policy set"""

    def __post_init__(self) -> None:
        near, stated = self.resource.entities, self.policies.entities
        object.__setattr__(self, "entities", Overlay(stated, near) if stated else near)


@lru_cache(maxsize=1024)
def resource_entity(name: str, *, uri: str, segment: str) -> Entity:
    """Return the Cedar entity of a resource with these attributes."""
    where = Uid("Segment", segment)
    return entity(Uid("Resource", name), {"name": name, "uri": uri, "segment": where}, (where,))


@lru_cache(maxsize=4096)
def secret_entity(mount: str, path: str, *, agent: str) -> Entity:
    """Return the Cedar entity of a secret. `agent`: id of the agent in whose folder the secret is stored; empty if the
    secret is in no agent's folder.
    """
    return entity(Uid("Secret", f"{mount}/{path}"), {"mount": mount, "path": path, "agent": agent})


def _tool_entity(tool: Tool, *, scope: str, classes: frozenset[str], resource: Entity) -> Entity:
    attrs: Record = {
        "name": tool.name,
        "resource": resource.uid,
        "segment": resource.attrs["segment"],
        "effect": tool.effect.value,
        "scope": scope,
        "data_classes": classes,
        "open_world": tool.open_world,
        "confirmed": bool(tool.confirmed),
    }
    return entity(Uid("Tool", f"{resource.uid.id}/{tool.name}"), attrs, resource.lineage)
