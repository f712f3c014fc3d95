"""The bearer exemption: an agent whose client does not support DPoP may get and use bearer tokens at one resource.

An administrator sets the exemption for a pair of agent and resource. For clients that no administrator registered, an
administrator exempts their class of registration at a resource. The guards of the resource receive the exemptions in
their feed, and accept bearer tokens only from these agents and classes. If an exemption is withdrawn, the bearer tokens
that depend on the exemption are revoked.
"""

from __future__ import annotations

from typing import NamedTuple

from ostiary.decision.feed import MAX_EXEMPT
from ostiary.protocol.errors import Conflict
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Resource, ResourceDelta, Root
from ostiaryd.trust import store
from ostiaryd.trust.model.clients import BearerClass


class Exemption(NamedTuple):
    """A bearer exemption of an agent, which may use tokens that are bound to no key: the resource at which the
    exemption applies, and the time of the exemption in microseconds.
    """

    resource: str
    uri: str
    since: int


def allow_bearer(act: Act, agent: str, resource: str) -> None:
    """Exempt an agent at a resource (each an id or a name), so that the agent may use bearer tokens there. Raises
    NotFound for an unknown agent or resource, and Conflict for a resource that cannot verify tokens (it has neither a
    guard nor a client secret), or too many exempt agents.
    """
    client, at = _find(act, agent, resource)
    if at.uri != _api(act.tx):
        _check_verifies(act, at)
    others = set(store.exemptions.list_exempt_agents(act.tx, at.resource_id)) - {client.agent_id}
    if len(others) >= MAX_EXEMPT:
        hint = "end an exemption: ostiary agent forbid-bearer NAME --resource RESOURCE"
        raise Conflict(f"{MAX_EXEMPT} agents are exempt at `{at.name}`, the maximum", hint=hint, code="too_many_exempt")
    store.exemptions.set_exempt(act.tx, client.agent_id, at.resource_id, True)
    registry.queue_for_guards(act, ResourceDelta(at.name))


def forbid_bearer(act: Act, agent: str, resource: str) -> None:
    """Withdraw the exemption of an agent at a resource, and revoke the agent's bearer tokens for the resource. Raises
    NotFound for an unknown agent or resource.
    """
    client, at = _find(act, agent, resource)
    store.exemptions.set_exempt(act.tx, client.agent_id, at.resource_id, False)
    for id in store.exemptions.unbound(act.tx, client.agent_id, at.uri):
        registry.end_holdings(act, Root.HOLDING, id, why="bearer forbidden")
    registry.queue_for_guards(act, ResourceDelta(at.name))


def _check_verifies(act: Act, at: Resource) -> None:
    """Check that a resource can verify bearer tokens: it has a guard, or a client secret that has not expired, with
    which it introspects tokens. Raises Conflict otherwise.
    """
    has_secret = any(one.expires_at > act.now for one in store.client_secrets.secrets(act.tx, at.resource_id))
    if at.jwk is None and not has_secret:
        hint = f"create a key for the guard: ostiary resource key {at.name} --generate-key FILE"
        raise Conflict(
            f"`{at.name}` has no guard and no client secret with which it could verify a bearer token",
            hint=hint,
            code="no_guard",
        )


def allow_bearer_class(act: Act, resource: str, registration: BearerClass) -> None:
    """Exempt all clients of a class of registration (`document`: clients with a metadata document, `dynamic`: clients
    that registered at `/register`) at a resource (id or name).

    Raises NotFound for an unknown resource, and Conflict for a resource that cannot verify tokens, such as this
    server's own API.
    """
    at = _find_resource(act, resource, registration)
    _check_verifies(act, at)
    store.exemptions.set_exempt_class(act.tx, at.resource_id, registration, True)
    registry.queue_for_guards(act, ResourceDelta(at.name))


def forbid_bearer_class(act: Act, resource: str, registration: BearerClass) -> None:
    """Withdraw the exemption of a class at a resource.

    All bearer tokens for the resource are revoked, also those of the other class, except tokens of agents with their
    own exemption there. Raises NotFound for an unknown resource.
    """
    at = _find_resource(act, resource, registration)
    store.exemptions.set_exempt_class(act.tx, at.resource_id, registration, False)
    exempt_agents = set(store.exemptions.list_exempt_agents(act.tx, at.resource_id))
    for id, agent in store.exemptions.unbound_at(act.tx, at.uri):
        if agent not in exempt_agents:
            registry.end_holdings(act, Root.HOLDING, id, why="bearer forbidden")
    registry.queue_for_guards(act, ResourceDelta(at.name))


def exempt_classes(reader: Reader, resource: str) -> list[BearerClass]:
    """Return the classes of registration, `document` and `dynamic`, whose clients may use bearer tokens at a resource
    (id or name). Raises NotFound for an unknown resource.
    """
    return store.exemptions.list_exempt_classes(reader, registry.find_resource(reader, resource).resource_id)


def may_have_bearer(reader: Reader, agent: str, resource_id: str, *, registration: str) -> bool:
    """Return whether an agent (id) may have bearer tokens for a resource (id), by the agent's exemption or by that of
    its class of registration.
    """
    if registration and registration in store.exemptions.list_exempt_classes(reader, resource_id):
        return True
    return store.exemptions.is_exempt(reader, agent, resource_id)


def exemptions(reader: Reader, agent: str) -> list[Exemption]:
    """Return the bearer exemptions of an agent (id or name). Raises NotFound for an unknown agent."""
    client = registry.find_agent(reader, agent)
    pairs = (
        (registry.find_resource(reader, id), since)
        for id, since in store.exemptions.exemptions_of(reader, client.agent_id)
    )
    return [Exemption(resource.name, resource.uri, since) for resource, since in pairs]


def list_exempt_names(reader: Reader) -> list[str]:
    """Return the names of all agents that have a bearer exemption at any resource."""
    return sorted(registry.find_agent(reader, id).name for id in store.exemptions.list_all_exempt(reader))


def _api(reader: Reader) -> str:
    return f"{registry.get_public_url(reader)}/api/v1"


def _find_resource(act: Act, resource: str, registration: BearerClass) -> Resource:
    at = registry.find_resource(act.tx, resource)
    registry.fill_entry(act, object=at.resource_id, name=at.name, registration=registration)
    return at


def _find(act: Act, agent: str, resource: str) -> tuple[Agent, Resource]:
    client, at = registry.find_agent(act.tx, agent), registry.find_resource(act.tx, resource)
    registry.fill_entry(act, object=client.agent_id, owner=client.owner, name=client.name, resource=at.name)
    return client, at
