"""Destinations of secrets, and the use of a secret by an egress proxy.

An egress proxy is the guard of the resource `http://localhost/egress/AGENT`, and may use secrets only for that agent.
With each request, the proxy sends the id of a live token that the agent got for that resource. Therefore a proxy gets a
secret only while the agent and its task are live. The agent itself has another key, and cannot request the secret.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ostiary.authorization.assurance import KEY
from ostiary.protocol.destination import Destination, check_secret
from ostiary.protocol.errors import Conflict, Forbidden, Invalid, NotFound
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.pages import Page
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets.flows import operators
from ostiaryd.secrets.flows.callers import VaultCaller, authorize, find_live
from ostiaryd.secrets.flows.seal import check_open
from ostiaryd.secrets.model.request import SecretAction, check_path, split_path
from ostiaryd.secrets.store import destinations as store
from ostiaryd.secrets.store.destinations import StoredDestination

MOST = 1000
PROXY_URI = "http://localhost/egress/"
"""Beginning of the URI of an egress proxy; the name of its agent follows."""
MAX_MEMBER = 128


class SecretUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request into which a secret is put: the id of the agent's token for the proxy, the destination, and the method,
    the host and the path of the request.
    """

    token: Annotated[str, Meta(max_length=256)]
    destination: Annotated[str, Meta(max_length=64)]
    method: Annotated[str, Meta(pattern=r"^[A-Z][A-Z-]{0,31}\Z", examples=["POST"])]
    host: Annotated[str, Meta(max_length=253)]
    path: Annotated[str, Meta(max_length=2048)]


def create_destination(act: Act, destination: Destination, *, secret: str, member: str) -> StoredDestination:
    """Create the destination of a secret. Raises Invalid, Malformed, Conflict."""
    name = destination.name
    registry.note(act, object=name[:64], origin=destination.origin[:256], secret=secret[:512])
    act.check_granting()
    destination.check()
    place = split_path(check_path(secret))
    if place.head not in operators.KEY_VALUE_MOUNTS or not place.rest or place.rest.endswith("/"):
        raise Invalid("`secret` is the path of a stored secret", hint="such as secret/shared/shop")
    if len(member) > MAX_MEMBER:
        raise Invalid(f"`member` has at most {MAX_MEMBER} characters")
    if store.get(act.tx, name) is not None:
        raise Conflict(f"the destination `{name}` exists", hint=f"ostiary egress remove {name}")
    if (other := store.find_same_field(act.tx, destination)) is not None:
        raise Conflict(f"`{other}` sets the same field of requests to {destination.origin}", hint="remove it first")
    if store.count(act.tx) >= MOST:
        raise Conflict(f"there are {MOST} destinations", hint="ostiary egress remove NAME")
    stored = StoredDestination(destination, secret, member, act.now)
    store.insert(act.tx, stored)
    return stored


def list_destinations(reader: Reader, page: Page) -> list[StoredDestination]:
    """Return a page of destinations by name."""
    return store.list_destinations(reader, page)


def delete_destination(act: Act, name: str) -> None:
    """Delete a destination: its secret is put into no further request. Raises NotFound."""
    registry.note(act, object=name[:64])
    if store.get(act.tx, name) is None:
        raise NotFound("the destination does not exist", hint="ostiary egress list")
    store.delete(act.tx, name)


def use_secret(act: Act, use: SecretUse, *, proxy: str, config: Config) -> str:
    """Return the secret of a destination to an egress proxy for one request of an agent. `proxy`: the id of the proxy's
    resource.

    The ledger entry names the destination and the request, never the value. Raises Forbidden, NotFound, NothingStored,
    Sealed, Invalid, RemotePoliciesNeeded.
    """
    resource = registry.find_resource(act.tx, proxy)
    entry = act.entry
    entry.resource, entry.token = resource.uri, use.token
    entry.detail = {
        "operation": "inject",
        "destination": use.destination,
        "host": use.host,
        "method": use.method,
        "path": use.path[:256],
    }
    holding = registry.get_holding(act.tx, use.token)
    if holding is None or holding.audience != resource.uri or not holding.is_live(act.now):
        raise Forbidden("no live token for this proxy has this id", code="foreign_token")
    agent, task = find_live(act, holding.agent, holding.task)
    entry.agent, entry.owner, entry.task = agent.agent_id, agent.owner, task.task_id
    entry.actors, entry.person = [link.agent for link in task.chain], task.person
    if resource.uri != f"{PROXY_URI}{agent.name}":
        raise Forbidden(
            "the resource is not the egress proxy of this agent",
            hint=f"register {PROXY_URI}{agent.name}",
            code="not_the_proxy",
        )
    stored = store.get(act.tx, use.destination)
    if stored is None:
        raise NotFound("the destination does not exist", hint="ostiary egress list", code="unknown_destination")
    entry.object = stored.secret
    if use.host != _host(stored.destination):
        raise Forbidden("the host does not own the secret", code="foreign_host")
    check_open(act.tx)
    caller = VaultCaller(agent, task, agent.scopes & task.scopes, KEY, (), holding.id)
    mount, path = split_path(stored.secret)
    request = {"destination": use.destination, "host": use.host, "method": use.method, "path": use.path}
    authorize(act, caller, mount, path, SecretAction.INJECT, "inject", request=request, config=config)
    secret = operators.get_secret(act, stored.secret)
    assert secret.value is not None  # a deleted version is refused
    return check_secret(_member(msgspec.json.decode(secret.value), stored.member))


def _host(destination: Destination) -> str:
    """Return host and port of an origin."""
    return destination.origin.partition("://")[2]


def _member(data: dict[str, object], member: str) -> object:
    """Return a member of a secret; for an empty name, its only member. Raises Invalid."""
    if not member and len(data) != 1:
        raise Invalid("the secret has several members", hint="name one in the destination", code="unusable_secret")
    return data.get(member or next(iter(data)))
