"""The target of a token: a resource, or an agent (RFC 8707, and `audience` of RFC 8693)."""

from __future__ import annotations

from ostiary.protocol.errors import Forbidden, Refused
from ostiaryd.ground.config import Config
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Resource, agent_uri
from ostiaryd.tokens.model import InvalidTarget, Target, check_target, resource_name, sole_resource


def choose_target(
    act: Act, uri: str | None, *, requested: frozenset[str], available: frozenset[str], config: Config
) -> Target:
    """Return the named resource or agent, or the only resource that the scopes belong to. Raises InvalidTarget.

    An unregistered resource has none of the scopes of a registered one.
    """
    if uri is None:
        name = sole_resource(requested or available)
        if (resource := registry.get_resource(act.tx, name)) is None:
            raise InvalidTarget(f"there is no resource `{name}`", hint="send `resource`")
        return _resource(act, resource)
    if (name := uri.removeprefix(agent_uri(config.issuer, ""))) != uri:
        return _agent(act, name, uri)
    if (resource := registry.get_resource_by_uri(act.tx, uri)) is not None:
        return _resource(act, resource)
    check_target(uri)
    if config.resources == "registered":
        raise InvalidTarget("there is no such resource", hint="`ostiary resource create` registers it")
    for name in sorted({resource_name(scope) for scope in requested}):
        if registry.get_resource(act.tx, name) is not None:
            raise InvalidTarget(f"scopes of `{name}` are for that resource", hint="ask for a token of its own")
    return Target(uri)


def _resource(act: Act, resource: Resource) -> Target:
    try:
        registry.check_none_stopped(act.tx, "resource", [resource.uri])
    except Forbidden as error:
        raise InvalidTarget(error.message, hint=error.hint) from None
    return Target(resource.uri, resource)


def _agent(act: Act, name: str, uri: str) -> Target:
    try:
        agent = registry.active_agent(act.tx, name, now=act.now)
    except Refused as error:
        raise InvalidTarget(error.message, hint=error.hint) from None
    if agent.name != name:
        raise InvalidTarget("an agent is named by its name in `resource`")
    return Target(uri, agent=agent)
