"""Issuing an access token: client credentials (RFC 6749 section 4.4), for a task, bound by DPoP (RFC 9449)."""

from __future__ import annotations

import msgspec

from ostiary.authorization.assurance import NO_DEMAND, SECRET, StepUp
from ostiary.authorization.bounds import ToolDetail
from ostiary.authorization.claims import parse_scope
from ostiary.protocol import dpop
from ostiary.protocol.errors import Forbidden, NotFound
from ostiaryd.ground.config import Config
from ostiaryd.ground.database.pin import InRecovery
from ostiaryd.ground.process.ids import is_id
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policies
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import State, Task, TaskId, standing_id, standing_task
from ostiaryd.tokens.flows.grants import check_task
from ostiaryd.tokens.flows.mint import Issued, authenticate, check_demand, mint
from ostiaryd.tokens.flows.target import choose_target
from ostiaryd.tokens.model import (
    InvalidGrant,
    InvalidTarget,
    Target,
    check_scopes,
    lifetime,
    narrow_details,
    scopes_at,
    scopes_of_bearer,
)
from ostiaryd.trust import flows as trust
from ostiaryd.trust.flows import Client
from ostiaryd.trust.model import Credentials


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed token request, not verified yet."""

    credentials: Credentials
    unverified_proof: str | None
    scope: str = ""
    resource: str | None = None
    task: str | None = None
    details: tuple[ToolDetail, ...] = ()
    demand: StepUp = NO_DEMAND


def issue(act: Act, grant: Grant, *, config: Config) -> Issued:
    """Issue a token.

    1. Authenticate the client, and check that it has the key to which the token will be bound; the authentication is
    spent. 2. Check that the task is the client's own, and live. 3. Narrow target, scopes and bounds. 4. Consult the
    policies. 5. Insert a holding: the token ends when the first of its roots ends (agent, task, keys).

    Raises InvalidClient, InvalidProof, NonceNeeded, Unmet, InvalidGrant, InvalidTarget, InvalidScope, InvalidDetails,
    and Forbidden (`access_denied`).
    """
    client, possession, proved = authenticate(
        act, grant.credentials, grant.unverified_proof, config=config, accepts_secret=True
    )
    check_demand(proved, grant.demand, now=act.now)
    task = _own_task(act, client, grant.task)
    has = client.scopes | task.elevated
    requested, available = parse_scope(grant.scope), has & task.scopes
    if not possession.is_bound:
        requested, available = scopes_of_bearer(requested, available=available)
    check_scopes(requested, agent=has, task=task.scopes)
    target = choose_target(act, grant.resource, requested=requested, available=available, config=config)
    if act.tx.pin.is_lost and target.uri != config.api:
        raise InRecovery
    if target.agent is not None and client.agent in (None, target.agent):
        raise InvalidTarget("only another agent can get a token for an agent", hint="name a resource")
    longest = config.token_lifetime_s
    if not possession.is_bound:
        _check_exempt(act, client, target)
        if proved.acr == SECRET and target.uri == config.api:
            raise InvalidTarget("a client secret gets no token for this server", hint="send `client_assertion`")
        longest = min(longest, config.bearer_lifetime_s)
    scope = scopes_at(target, requested, available=available)
    details = narrow_details(grant.details, task=task.bounds, target=target)
    policy = _consult(act, client, task, target, scope, details, acr=proved.acr)
    seconds = lifetime(now=act.now, longest=longest, ends=(client.ends, task.expires_at))
    return mint(
        act,
        client,
        possession,
        proved,
        task=task,
        target=target,
        scope=scope,
        details=details,
        policy=policy,
        seconds=seconds,
        config=config,
    )


def _check_exempt(act: Act, client: Client, target: Target) -> None:
    """Check that the client may have a token without a key at the target. Raises InvalidProof."""
    if client.agent is None:
        raise dpop.InvalidProof("the DPoP proof is missing", hint="send the header `DPoP`")
    if target.resource is None:
        hint = "send the header `DPoP`; bearer tokens are for registered resources"
        raise dpop.InvalidProof("the DPoP proof is missing", hint=hint)
    if not trust.is_exempt(act.tx, client.id, target.resource.resource_id):
        name = target.resource.name
        hint = f"send `DPoP`, or exempt the agent: ostiary agent allow-bearer {client.agent.name} --resource {name}"
        raise dpop.InvalidProof(
            f"the DPoP proof is missing, and `{name}` accepts no bearer token of this agent", hint=hint
        )


def _own_task(act: Act, client: Client, id: str | None) -> Task:
    """Return the live task that the client names, or its standing task. Raises InvalidGrant."""
    if client.agent is None:
        if id is not None:
            raise InvalidGrant("only agents have tasks")
        return Task(
            task_id=TaskId(""),
            agent=AgentId(client.id),
            person=None,
            purpose="",
            scopes=client.scopes,
            bounds=(),
            state=State.LIVE,
            created_at=act.now,
            expires_at=None,
        )
    standing = standing_id(client.agent.agent_id)
    try:
        if id is None or id == standing:
            registry.check_none_stopped(act.tx, "task", [standing])
            return standing_task(client.agent)
        if is_id(id, "tk"):  # any other text may be a secret in the wrong field
            act.entry.detail = {"task": id}  # claimed: `task` is set where it is the agent's own
        task = tasks.live(act.tx, id, now=act.now)
    except NotFound:
        raise InvalidGrant("task not found") from None
    except Forbidden as error:
        code = error.code if error.code == tasks.ELEVATION_ENDED else None  # as it is recorded; said is `invalid_grant`
        raise InvalidGrant(error.message, hint=error.hint, code=code) from None
    if task.agent != client.id:
        raise InvalidGrant("task not found")
    check_task(act, task)
    return task


def _consult(
    act: Act,
    client: Client,
    task: Task,
    target: Target,
    scope: frozenset[str],
    details: tuple[ToolDetail, ...],
    *,
    acr: str,
) -> str:
    """Return the hash of the policies that permit the token; empty for guards and persons. Policies do not decide on
    tokens of guards and persons, which get only scopes of this server.

    Raises Forbidden, InvalidTarget.
    """
    if client.agent is None:
        if not scope:
            raise InvalidTarget("guards and persons get tokens for a scope of this server only")
        return ""
    return policies.decide_issue(
        act,
        client.agent,
        task=task.task_id,
        resource=target.resource,
        uri=target.uri,
        scopes=scope,
        details=details,
        chain=task.chain,
        person=task.person,
        acr=acr,
    )
