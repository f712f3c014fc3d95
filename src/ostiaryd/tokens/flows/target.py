"""The target of a token: a resource, or an agent (RFC 8707, and `audience` of RFC 8693)."""

from __future__ import annotations

from ostiary.protocol.errors import Forbidden, Refused
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Resource, agent_uri
from ostiaryd.tokens.model import (
    InvalidTarget,
    Target,
    check_target,
    is_origin_of,
    resource_name,
    sole_resource,
)


def choose_target(
    act: Act, uri: str | None, *, requested: frozenset[str], available: frozenset[str], config: Config
) -> Target:
    """Return the target of a token as `find_target` does, for the time and the transaction of `act`. Raises
    InvalidTarget as `find_target` does.
    """
    return find_target(act.tx, uri, requested=requested, available=available, now=act.now, config=config)


def find_target(
    reader: Reader, uri: str | None, *, requested: frozenset[str], available: frozenset[str], now: int, config: Config
) -> Target:
    """Return the registered resource or agent that `uri` names, or an unregistered `https` resource if the
    configuration allows it. Without `uri`, return the only resource of the requested scopes, or, if none is requested,
    of the available scopes. A `uri` that is only an origin, as MCP clients of 2025 send it, names the only resource of
    the requested scopes, or, if none is requested, the only resource with this origin. Raises InvalidTarget if there is
    no such resource, or the request has scopes of another one.

    A token for an unregistered resource cannot have scopes of a registered one.
    """
    if uri is None:
        name = sole_resource(requested or available)
        if (resource := registry.get_resource(reader, name)) is None:
            hint = "use scopes of a registered resource, or send `resource`"
            raise InvalidTarget(f"there is no resource `{name}`, to which the scopes belong", hint=hint)
        return _resource(reader, resource)
    if (name := uri.removeprefix(agent_uri(config.issuer, ""))) != uri:
        return _agent(reader, name, uri, now=now)
    if (resource := registry.get_resource_by_uri(reader, uri)) is not None:
        return _resource(reader, resource)
    if (resource := _find_by_origin(reader, uri, requested)) is not None:
        return _resource(reader, resource)
    check_target(uri)
    if config.resources == "registered":
        raise InvalidTarget(
            "no resource is registered with this URI",
            hint="register the resource: ostiary resource create NAME --uri URI",
        )
    for name in sorted({resource_name(scope) for scope in requested}):
        if registry.get_resource(reader, name) is not None:
            raise InvalidTarget(
                f"the request has scopes of `{name}` for another resource", hint="request one token for each resource"
            )
    return Target(uri)


def _find_by_origin(reader: Reader, uri: str, requested: frozenset[str]) -> Resource | None:
    """Return the registered resource for which the origin `uri` stands (`find_target`); otherwise None."""
    names = {resource_name(scope) for scope in requested}
    if len(names) > 1:
        return None
    resource = registry.get_resource(reader, names.pop()) if names else registry.find_resource_by_origin(reader, uri)
    return resource if resource is not None and is_origin_of(uri, resource.uri) else None


def _resource(reader: Reader, resource: Resource) -> Target:
    try:
        registry.check_none_stopped(reader, "resource", [resource.uri])
    except Forbidden as error:
        raise InvalidTarget(error.message, hint=error.hint) from None
    return Target(resource.uri, resource)


def _agent(reader: Reader, name: str, uri: str, *, now: int) -> Target:
    try:
        agent = registry.active_agent(reader, name, now=now)
    except Refused as error:
        raise InvalidTarget(error.message, hint=error.hint) from None
    if agent.name != name:
        raise InvalidTarget("`resource` contains the id of the agent", hint="use the agent's name in `resource`")
    return Target(uri, agent=agent)
