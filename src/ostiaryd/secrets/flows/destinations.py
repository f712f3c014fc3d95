"""Destinations of secrets, and the use of a secret by an egress proxy.

An egress proxy is the guard of the resource `http://localhost/egress/AGENT`, and may use secrets only for the agent
AGENT. With each request, the proxy sends the id of a live token that the agent got for this resource. A proxy therefore
gets a secret only while the agent and its task are live. The agent has another key, and cannot request the secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from ostiary.authorization.assurance import KEY
from ostiary.protocol.destination import PROXY_URI, Destination, check_secret
from ostiary.protocol.errors import Conflict, Forbidden, Invalid, NotFound
from ostiaryd.ground.config import Config
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import account_tokens, operators
from ostiaryd.secrets.flows.account_tokens import IssueToken
from ostiaryd.secrets.flows.backends import find_backend
from ostiaryd.secrets.flows.callers import VaultCaller, authorize, find_live, try_scopes
from ostiaryd.secrets.flows.seal import check_open
from ostiaryd.secrets.model.backend import BACKEND_MOUNT
from ostiaryd.secrets.model.connected_account import OAUTH_MOUNT, AccessToken, check_scopes
from ostiaryd.secrets.model.request import SecretAction, check_path, split_path
from ostiaryd.secrets.model.upstream import ReadBackend
from ostiaryd.secrets.store.destinations import StoredDestination

MOST = 1000
MAX_MEMBER = 128


class SecretUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request into which an egress proxy puts a secret: the id of the agent's token for the proxy, the destination,
    and the method, the host and the path of the request.
    """

    token: Annotated[str, Meta(max_length=256)]
    destination: Annotated[str, Meta(max_length=64)]
    method: Annotated[str, Meta(pattern=r"^[A-Z][A-Z-]{0,31}\Z", examples=["POST"])]
    host: Annotated[str, Meta(max_length=253)]
    path: Annotated[str, Meta(max_length=2048)]


class UsableSecret(NamedTuple):
    """The value of a secret for one request, and its expiry in microseconds (0: none)."""

    value: str
    expires_at: int = 0

    def __repr__(self) -> str:
        """Return a text with the time of expiry and without the value, which is secret."""
        return f"UsableSecret({self.expires_at})"


class BackendSecret(NamedTuple):
    """A secret of a back end that the server must still read, outside of the transaction; and the name of the member to
    use.
    """

    read: ReadBackend
    member: str


def create_destination(
    act: Act, destination: Destination, *, secret: str, member: str, scopes: tuple[str, ...] = ()
) -> StoredDestination:
    """Create the destination of a secret: the place in requests to an origin into which egress proxies put a secret.
    Return it. `secret`: the path of the secret. `member`: the member of its value; empty for a connected account.
    `scopes`: the scopes of an access token of a connected account; empty for all. Raises Malformed for a malformed
    path, Invalid for another value that is not valid; Conflict if another destination has the name or sets the same
    field of requests to the origin, or the server has too many; ClockJumped while the server grants nothing after a
    jump of its clock.
    """
    name = destination.name
    registry.fill_entry(act, object=name[:64], secret=secret[:512])
    act.check_granting()
    destination.check()
    registry.fill_entry(act, object=name, origin=destination.origin[:256])
    _check_source(secret, member, scopes)
    if store.destinations.get(act.tx, name) is not None:
        hint = f"remove the present destination: ostiary egress remove {name}"
        raise Conflict(f"the destination `{name}` exists already", hint=hint)
    if (other := store.destinations.find_same_field(act.tx, destination)) is not None:
        raise Conflict(
            f"the destination `{other}` already sets this field of requests to {destination.origin}",
            hint=f"remove the destination `{other}` first",
        )
    if store.destinations.count(act.tx) >= MOST:
        raise Conflict(
            f"the server has {MOST} destinations, which is the limit",
            hint="remove a destination: ostiary egress remove NAME",
        )
    stored = StoredDestination(destination, secret, member, frozenset(scopes), act.now)
    store.destinations.insert(act.tx, stored)
    return stored


def delete_destination(act: Act, name: str) -> None:
    """Delete a destination: proxies put its secret into no further request. Raises NotFound if there is none."""
    registry.fill_entry(act, object=name[:64])
    if store.destinations.get(act.tx, name) is None:
        raise NotFound("destination not found", hint="list the destinations with `ostiary egress list`")
    store.destinations.delete(act.tx, name)


def use_secret(act: Act, use: SecretUse, *, proxy: str, config: Config) -> UsableSecret | IssueToken | BackendSecret:
    """Return the secret of a destination for one request of an agent. `proxy`: the id of the resource as which the
    agent's egress proxy is registered.

    For a connected account or a back end, the result can be a token or a secret that the caller must still fetch. The
    act's ledger entry names the destination and the request, never the value. Raises Forbidden if the token, the proxy,
    the host, the task or a policy does not permit the use; NotFound or NothingStored if the destination or its secret
    does not exist; Invalid for a value that no request can contain; for a connected account also the errors of
    `use_account`; Sealed if the secrets are sealed; RemotePoliciesNeeded if a policy server must be asked first.
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
        raise Forbidden("the token is unknown, has ended, or is not for this proxy", code="foreign_token")
    agent, task = find_live(act, holding.agent, holding.task)
    entry.agent, entry.owner, entry.task = agent.agent_id, agent.owner, task.task_id
    entry.actors, entry.person = [link.agent for link in task.chain], task.person
    if resource.uri != f"{PROXY_URI}{agent.name}":
        raise Forbidden(
            f"the caller, `{resource.uri}`, is not the egress proxy of the agent `{agent.name}`",
            hint=f"run the proxy as the resource {PROXY_URI}{agent.name}, which the owner registers",
            code="not_the_proxy",
        )
    stored = store.destinations.get(act.tx, use.destination)
    if stored is None:
        raise NotFound(
            "destination not found", hint="list the destinations with `ostiary egress list`", code="unknown_destination"
        )
    entry.object = stored.secret
    if use.host != _host(stored.destination):
        raise Forbidden(
            f"the destination `{use.destination}` is not for the host {use.host[:100]}",
            hint=f"send the secret only to {_host(stored.destination)}",
            code="foreign_host",
        )
    check_open(act.tx)
    caller = VaultCaller(agent, task, agent.scopes & task.scopes, KEY, (), holding.id)
    mount, path = split_path(stored.secret)
    provider = split_path(path)[1] if mount == OAUTH_MOUNT else ""
    scopes, missing = frozenset[str](), None
    if provider:
        scopes, missing = try_scopes(partial(account_tokens.find_scopes, act, provider, stored.scopes), stored.scopes)
    authorize(
        act,
        caller,
        mount,
        path,
        SecretAction.INJECT,
        "inject",
        request={"destination": use.destination, "host": use.host, "method": use.method, "path": use.path},
        config=config,
        token_scopes=scopes,
    )
    if missing is not None:
        raise missing
    if provider:
        token = account_tokens.use_account(act, provider, stored.scopes)
        return token if isinstance(token, IssueToken) else usable_token(token)
    if mount == BACKEND_MOUNT:
        name, below = split_path(path)
        find_backend(act.tx, name)
        return BackendSecret(ReadBackend(name, below, holding.id), stored.member)
    secret = operators.get_secret(act, stored.secret)
    assert secret.value is not None  # a deleted version is refused
    return usable_member(msgspec.json.decode(secret.value), stored.member)


def is_known(reader: Reader, use: SecretUse, secret: UsableSecret, *, keys: Keyring, now: int) -> bool:
    """Return whether the server already remembers that a proxy put this secret into a request of the agent, and will do
    so for at least another hour (`KNOWN_US`); the agent's tool calls are searched for remembered secrets. `use.token`
    identifies the agent.
    """
    holding = registry.get_holding(reader, use.token)
    return holding is not None and registry.is_secret_known(reader, holding.agent, secret.value, keys=keys, now=now)


def know(act: Act, use: SecretUse, secret: UsableSecret) -> None:
    """Remember that a proxy puts this secret into a request of the agent, so that the agent's tool calls are searched
    for the secret from now on. `use.token` identifies the agent. Raises Forbidden if the token has ended; Conflict if
    too many secrets are remembered for the agent.
    """
    holding = registry.get_holding(act.tx, use.token)
    registry.fill_entry(act, object=use.destination)
    if holding is None:
        raise Forbidden("the token has ended", code="foreign_token")
    agent = registry.find_agent(act.tx, holding.agent)
    act.entry.agent, act.entry.owner, act.entry.task = agent.agent_id, agent.owner, holding.task
    act.entry.token = holding.id
    registry.know_secret(act, agent.agent_id, secret.value)


def usable_token(token: AccessToken) -> UsableSecret:
    """Return an access token as the value for a request. Raises Invalid for a token that no request can contain."""
    return UsableSecret(check_secret(token.text), token.expires_at)


def usable_member(data: Mapping[str, object], member: str) -> UsableSecret:
    """Return the member `member` of a secret as the value for a request; for an empty `member`, the only member. Raises
    Invalid if the secret has no such member, if `member` is empty and the secret has not exactly one member, or if no
    request can contain the value.
    """
    if not member and len(data) != 1:
        raise Invalid(
            f"the secret has {len(data)} members, and the destination does not name a member",
            hint="name a member in the destination",
            code="unusable_secret",
        )
    return UsableSecret(check_secret(data.get(member or next(iter(data)))))


def _check_source(secret: str, member: str, scopes: tuple[str, ...]) -> None:
    """Check that the path of a secret, its member and its scopes fit together. Raises Invalid if they do not, Malformed
    for a malformed path.
    """
    mount, path = split_path(check_path(secret))
    is_account = mount == OAUTH_MOUNT
    match mount, split_path(path):
        case _, _ if path.endswith("/"):
            is_known = False
        case "oauth", ("creds", provider):
            is_known = bool(provider) and "/" not in provider and not member
        case "backend", (_, below):
            is_known = bool(below)
        case _:
            is_known = mount in operators.KEY_VALUE_MOUNTS and bool(path)
    if not is_known:
        raise Invalid(
            "`secret` must be the path of a stored secret, of a secret of a back end, or of a provider's tokens",
            hint="write secret/shared/shop, backend/NAME/shop or oauth/creds/PROVIDER (without a member)",
        )
    if len(member) > MAX_MEMBER:
        raise Invalid(f"`member` may have at most {MAX_MEMBER} characters")
    if scopes and not is_account:
        raise Invalid("`scopes` is only for access tokens (oauth/creds/PROVIDER)", hint="leave `scopes` out")
    check_scopes(scopes)


def _host(destination: Destination) -> str:
    """Return the host and port of a destination's origin."""
    return destination.origin.partition("://")[2]
