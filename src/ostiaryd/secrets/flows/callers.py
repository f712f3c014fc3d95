"""Callers of the Vault API, and the checks of their access. A caller is an agent under a task, authenticated by a Vault
token, an access token, or an access key of the AWS API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from ostiary.authorization.bounds import ToolDetail, parse_details, permits
from ostiary.authorization.claims import AccessClaims, scopes
from ostiary.decision.access import find_unproved
from ostiary.protocol.errors import Forbidden, Invalid, Refused
from ostiary.protocol.proxies import is_within_networks
from ostiaryd.ground.config import Config
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policy
from ostiaryd.policy.model import SecretSeen
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Holding
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.engine import Operation
from ostiaryd.secrets.model.request import Answer, SecretAction
from ostiaryd.secrets.model.token import TOKEN_PREFIX, VaultToken
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, standing_task
from ostiaryd.trust import flows as trust

FOLDER = "agents/"
"""Beginning of the folders of agents: `agents/NAME/` of each mount belongs to the agent NAME."""
CUBBYHOLE = "cubbyhole"
"""Mount of the private values of tokens; for policies, each path belongs to the agent of the request."""
_ADMINISTERED = frozenset({"auth", "sys"})
"""Mounts in which agents have no folders of their own."""
_READING = frozenset({SecretAction.READ, SecretAction.LIST})
"""Actions that an agent may use while a restriction limits the agent to reads. Access tokens of connected accounts are
not included, because their holder may write at the provider.
"""


class TokenRefused(Forbidden):
    """The Vault token or access key is missing, unknown, expired or revoked, is used from an address to which it is not
    bound, or may not be used for this request.
    """

    code = "token_refused"


class LoginRefused(Invalid):
    """The credentials of a login to the Vault API are wrong, or the agent to which they belong may not log in."""

    code = "login_refused"


class VaultCredentials(msgspec.Struct, frozen=True):
    """The unverified credentials of a request: a Vault token; or, if `request` is not None, an access token with its
    DPoP proof, which `request` contains.
    """

    unverified_token: str
    request: trust.Request | None
    address: str


class VaultCaller(msgspec.Struct, frozen=True):
    """An authenticated, active agent under a live task. `details`: the bounds of the token that authenticated the
    agent, besides the bounds of the task. `holding`: the id of the token or access key that authenticated the agent.
    `token`: its Vault token, None for other credentials.
    """

    agent: Agent
    task: Task
    scopes: frozenset[str]
    acr: str
    details: tuple[ToolDetail, ...]
    holding: str
    auth_time: int | None = None
    token: VaultToken | None = None


class CallerOperation(NamedTuple):
    """An `Operation` before it is bound to a caller: its functions `run` and `exists` take the caller as second
    argument. The other members have the meanings of `Operation`.
    """

    action: SecretAction
    path: str
    name: str
    run: Callable[[Act, VaultCaller], Answer]
    exists: Callable[[Act, VaultCaller], bool] | None = None

    def bind(self, caller: VaultCaller) -> Operation:
        """Return the operation with its functions bound to `caller`."""
        exists = self.exists
        return Operation(
            self.action,
            self.path,
            self.name,
            lambda act: self.run(act, caller),
            exists=None if exists is None else lambda act: exists(act, caller),
        )


def token_digest(keys: Keyring, unverified_token: str) -> bytes:
    """Return the keyed hash under which a Vault token is stored."""
    return keys.keyed_hash("vault token").digest(unverified_token.encode())


def authenticate(act: Act, credentials: VaultCredentials, *, config: Config) -> VaultCaller:
    """Return the caller of a request, and write the caller into the act's ledger entry. Raises TokenRefused for a Vault
    token that is not valid, the errors of `verify_claims` for an access token, NotFound or Forbidden if the agent may
    not act.
    """
    if credentials.request is None:
        caller = _authenticate_token(act, credentials.unverified_token, address=credentials.address)
    else:
        caller = _authenticate_access(act, credentials.request, config=config)
    entry = act.entry
    entry.agent, entry.owner, entry.task = caller.agent.agent_id, caller.agent.owner, caller.task.task_id
    entry.token, entry.actors, entry.person = (
        caller.holding,
        [link.agent for link in caller.task.chain],
        caller.task.person,
    )
    return caller


def _authenticate_token(act: Act, unverified_token: str, *, address: str) -> VaultCaller:
    is_token = unverified_token.startswith(TOKEN_PREFIX) and unverified_token.isascii()
    token = store.tokens.get(act.tx, token_digest(act.tx.keys, unverified_token)) if is_token else None
    if token is None:
        raise TokenRefused("permission denied", hint="log in again")
    holding = registry.get_holding(act.tx, token.holding)
    if holding is None or not holding.is_live(act.now) or has_expired(act, token):
        raise TokenRefused("permission denied: the token has ended", hint="log in again")
    act.entry.agent, act.entry.token = holding.agent, holding.id
    if not is_within_networks(address, token.network):
        raise TokenRefused(
            "permission denied: the token is bound to another address", hint="log in from the present address"
        )
    caller = caller_of(act, token, holding)
    if token.uses_left:
        store.tokens.set_uses(act.tx, token.accessor, token.uses_left - 1 or -1)
    return caller


def caller_of(act: Act, token: VaultToken, holding: Holding) -> VaultCaller:
    """Return the caller whom a live token authenticates, under the task of the token. Raises NotFound for an unknown
    agent or task, Forbidden if the agent or the task has ended or is stopped.
    """
    agent, task = find_live(act, holding.agent, holding.task)
    own = _scopes(agent, task, token.scopes)
    return VaultCaller(agent, task, own, token.acr, token.details, holding.id, token=token)


def has_expired(act: Act, token: VaultToken) -> bool:
    """Return whether a token has expired or has no uses left, or a token above it (its parent, the parent's parent) has
    expired.
    """
    if token.uses_left < 0 or act.now >= token.expires_at:
        return True
    for accessor in token.options.above:
        above = store.tokens.get_by_accessor(act.tx, accessor)
        if above is None or act.now >= above.expires_at:
            return True
    return False


def _authenticate_access(act: Act, request: trust.Request, *, config: Config) -> VaultCaller:
    if request.authorization is None:
        raise TokenRefused("permission denied: missing client token", hint="send the header X-Vault-Token")
    claims = verify_claims(act, request, config=config)
    agent, task = find_live(act, claims.client_id, claims.task)
    details = parse_details(claims.authorization_details)
    own = _scopes(agent, task, scopes(claims))
    return VaultCaller(agent, task, own, claims.acr, details, claims.jti, claims.auth_time)


def verify_claims(act: Act, request: trust.Request, *, config: Config) -> AccessClaims:
    """Verify an access token of an agent for this server's API, mark its DPoP proof as used, and return the claims.

    Raises AccessRefused for the token, InvalidProof for the proof, NonceNeeded if the proof has no recent nonce;
    TokenRefused if the token does not belong to an agent.
    """
    access = trust.verify_access(
        request, audience=config.api, reader=act.tx, now=act.now, keys=act.tx.keys, config=config
    )
    if access.proof is not None:
        trust.spend_proof(act.tx, access.proof)
    if access.caller.kind != "agent":
        raise TokenRefused("only agents may use secrets at this API", hint="send the token of an agent")
    return trust.read_claims(request.authorization, keys=act.tx.keys)


def find_live(act: Act, agent_id: str, task_id: str | None) -> tuple[Agent, Task]:
    """Return an agent that may act now, and the agent's live task with its delegation chain. `task_id` None: the
    standing task, for work without a declared task. Raises NotFound for an unknown agent or task, Forbidden if the
    agent or the task has ended or is stopped, or the task belongs to another agent.
    """
    agent = registry.active_agent(act.tx, agent_id, now=act.now)
    standing = standing_task(agent)
    if not task_id or task_id == standing.task_id:
        registry.check_none_stopped(act.tx, "task", [standing.task_id])
        return agent, standing
    task = tasks.live(act.tx, task_id, now=act.now)
    if task.agent != agent.agent_id:
        raise Forbidden("the task belongs to another agent", code="foreign_task")
    return agent, task


def _scopes(agent: Agent, task: Task, granted: frozenset[str]) -> frozenset[str]:
    return granted & task.scopes & (agent.scopes | task.elevated)


def authorize(
    act: Act,
    caller: VaultCaller,
    mount: str,
    path: str,
    action: SecretAction,
    operation: str,
    *,
    request: Mapping[str, str] = MappingProxyType({}),
    config: Config,
    token_scopes: frozenset[str] | None = None,
) -> None:
    """Check that a caller may act on a path: first the restrictions, then the bounds of task and token, then the
    policies.

    `request`: the request into which an egress proxy puts the secret; the bounds see its members as arguments, and the
    policies see them in the context. `token_scopes`: the scopes of the access token that the operation issues; None: it
    issues none. Raises Forbidden if a restriction, the bounds or the policies deny, and RemotePoliciesNeeded if a
    policy server must be asked first.
    """
    _check_restrictions(act, caller, action)
    members = tuple((f"request_{name}", value) for name, value in request.items()) if request else ()
    if bounds := [details for details in (caller.task.bounds, caller.details) if details]:
        arguments: dict[str, object] = {**dict(members), "path": f"{mount}/{path}"}
        if token_scopes is not None:
            arguments["scopes"] = sorted(token_scopes)
        if not all(permits(one, resource_uri=config.api, tool=action, arguments=arguments) for one in bounds):
            raise Forbidden(
                f"permission denied: the bounds of the task or the token do not allow `{action}` on this path",
                hint=f"bounds of a task name the tool {action} of {config.api}, with the argument `path`",
                code="outside_task",
            )
    try:
        policy.check_secret(
            act,
            caller.agent,
            policy.TaskChain.of(caller.task),
            action=action,
            operation=operation,
            secret=SecretSeen(mount, path, _owner_of(act, caller, mount, path)),
            scopes=caller.scopes,
            acr=caller.acr,
            request=members,
            token_scopes=token_scopes,
        )
    except Forbidden as refusal:
        raise Forbidden(f"permission denied: {refusal.message}", hint=refusal.hint, code=refusal.code) from None


def authorize_operation(act: Act, caller: VaultCaller, mount: str, operation: Operation, *, config: Config) -> None:
    """Check that a caller may run an operation of an engine. Raises Forbidden if the caller may not, and
    RemotePoliciesNeeded if a policy server must be asked first.

    The error of the operation's `find_scopes` tells which providers and accounts exist, so it is raised only after the
    policies have permitted the request with the requested scopes.
    """
    scopes, missing = None, None
    if operation.find_scopes is not None:
        scopes, missing = try_scopes(partial(operation.find_scopes, act), operation.requested)
    for action, path in ((operation.action, operation.path), *operation.also):
        authorize(act, caller, mount, path, action, operation.name, config=config, token_scopes=scopes)
    if missing is not None:
        raise missing


def try_scopes(find: Callable[[], frozenset[str]], requested: frozenset[str]) -> tuple[frozenset[str], Refused | None]:
    """Return the scopes that `find` returns, and None; or, if `find` raises Refused, `requested` and the error. The
    caller raises the error only after the policies have permitted the request, because the error tells which providers
    and accounts exist.
    """
    try:
        return find(), None
    except Refused as refusal:
        return requested, refusal


def _check_restrictions(act: Act, caller: VaultCaller, action: SecretAction) -> None:
    """Check the restrictions of each agent in the delegation chain. Raises Forbidden if the check fails.

    A throttled agent gets no secret, because only guards count calls.
    """
    own = (caller.agent.agent_id,) if caller.agent.restricted_until > act.now else ()
    for agent in dict.fromkeys((*own, *caller.task.restricted)):
        for one in registry.list_restrictions_of_agent(act.tx, agent, now=act.now):
            is_kept = (one.kind == "narrow" and action in _READING) or (
                one.kind == "step_up" and find_unproved(caller.acr, caller.auth_time, one, now=act.now) is None
            )
            if not is_kept:
                raise Forbidden(
                    f"permission denied: an agent in the delegation chain of the task is restricted: {one.kind}",
                    hint="ask an administrator to end the restriction",
                    code="restricted",
                )


def _owner_of(act: Act, caller: VaultCaller, mount: str, path: str) -> str:
    """Return the id of the agent whose folder contains the path; an empty text if no agent's folder does."""
    if mount == CUBBYHOLE:
        return caller.agent.agent_id
    if mount in _ADMINISTERED or not path.startswith(FOLDER):
        return ""
    name, slash, _ = path[len(FOLDER) :].partition("/")
    agent = registry.get_agent(act.tx, name) if slash else None
    return agent.agent_id if agent is not None and agent.name == name else ""


def may_reach(act: Act, caller: VaultCaller, mount: str, path: str | None = None) -> bool:
    """Return whether policies may permit a caller anything at a path, or, if `path` is None, at any path of a mount.
    Restrictions and bounds are not checked.
    """
    return policy.may_use_secrets(
        act,
        caller.agent,
        policy.TaskChain.of(caller.task),
        actions=tuple(SecretAction),
        mount=mount,
        path=path,
        scopes=caller.scopes,
        acr=caller.acr,
    )


def is_permitted(
    act: Act, caller: VaultCaller, mount: str, path: str, action: SecretAction, operation: str, *, config: Config
) -> bool:
    """Return whether a caller may act on a path. Unlike `authorize`, a denial raises nothing, so the request goes on.
    Raises RemotePoliciesNeeded if a policy server must be asked first.
    """
    return passes(lambda: authorize(act, caller, mount, path, action, operation, config=config))


def may_carry_out(act: Act, caller: VaultCaller, mount: str, operation: Operation, *, config: Config) -> bool:
    """Return whether a caller may run an operation. Unlike `authorize_operation`, a denial raises nothing, so the
    request goes on. Raises RemotePoliciesNeeded if a policy server must be asked first.
    """
    return passes(lambda: authorize_operation(act, caller, mount, operation, config=config))


def passes(check: Callable[[], object]) -> bool:
    """Call `check`, and return whether it raises no refusal (Refused). Raises RemotePoliciesNeeded and other
    challenges, after which the request is tried again.
    """
    try:
        check()
    except Refused as refusal:
        if refusal.is_challenge:
            raise
        return False
    return True
