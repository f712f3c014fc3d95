"""A cache for the process of the detectors: facts of the registry about agents, tools and networks."""

from __future__ import annotations

from ostiary.authorization.catalogue import Catalogue
from ostiary.provenance.noticing.threats import Threats, find_network_list
from ostiaryd.ground.database import Reader
from ostiaryd.registry import flows as registry
from ostiaryd.watch import store
from ostiaryd.watch.model import ToolSeen

MAX_KNOWN = 1 << 15
_NOTHING = ToolSeen()


class FactCache:
    """Facts of the registry that detectors need, about tools, agents and networks. Each fact, except the group of
    peers, is read once, and again after `forget`.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._tools: dict[str, dict[str, ToolSeen]] = {}
        """Facts about tools, by the URI of the resource and the id of the tool."""
        self._models: dict[str, str] = {}
        self._threats: Threats | None = None
        self._networks: dict[str, tuple[str, int] | None] = {}

    def tool(self, uri: str, tool: str) -> ToolSeen:
        """Return the facts about a tool from the catalogue of the resource with this URI; empty facts if the resource
        or the tool is unknown.
        """
        if uri not in self._tools:
            if len(self._tools) >= MAX_KNOWN:
                self._tools.clear()
            self._tools[uri] = self._catalogue(uri)
        return self._tools[uri].get(tool, _NOTHING)

    def _catalogue(self, uri: str) -> dict[str, ToolSeen]:
        resource = registry.get_resource_by_uri(self._reader, uri)
        text = None if resource is None else registry.get_catalogue(self._reader, resource.resource_id)
        if resource is None or text is None:
            return {}
        catalogue = Catalogue.parse(text.encode())
        return {
            f"{resource.name}/{name}": ToolSeen(
                tool.effect.value, tuple(sorted(catalogue.classes(tool))), tool.canary is True
            )
            for name, tool in catalogue.tools.items()
        }

    def model(self, agent: str) -> str:
        """Return the model of an agent (by id); empty for an unknown agent."""
        if agent not in self._models:
            if len(self._models) >= MAX_KNOWN:
                self._models.clear()
            agent_row = registry.get_agent(self._reader, agent)
            self._models[agent] = "" if agent_row is None else agent_row.model
        return self._models[agent]

    def peers(self, agent: str) -> str:
        """Return the name of the agent's group of peers: agents of the same kind with scopes at the same resources.
        Empty for an unknown agent.
        """
        agent_row = registry.get_agent(self._reader, agent)
        if agent_row is None:
            return ""
        return " ".join([agent_row.kind.value, *sorted({scope.partition(":")[0] for scope in agent_row.scopes})])

    def threat(self, network: str) -> tuple[str, int] | None:
        """Return the name and the risk points of the threat list that contains a network address; None if no list
        contains it.
        """
        if self._threats is None:
            self._threats = store.threats.load(self._reader)
        if network not in self._networks:
            if len(self._networks) >= MAX_KNOWN:
                self._networks.clear()
            threat = find_network_list(network, self._threats)
            self._networks[network] = None if threat is None else (threat.name, threat.points)
        return self._networks[network]

    def forget(self, action: str, object: str) -> None:
        """Delete the cached facts that an act on `object` (the object of its ledger entry) may have changed."""
        if action.startswith("resource."):
            self._tools.clear()
        elif action.startswith("threats."):
            self._threats = None
            self._networks.clear()
        else:
            self._models.pop(object, None)
