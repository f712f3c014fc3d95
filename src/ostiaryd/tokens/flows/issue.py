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
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, TaskId, TaskState, standing_id, standing_task
from ostiaryd.tokens.flows.grants import check_task
from ostiaryd.tokens.flows.mint import Issued, TokenAccess, authenticate, check_demand, consult_policies, mint
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
    """The parsed parameters of a client credentials token request. Nothing in the request has been verified."""

    credentials: Credentials
    unverified_proof: str | None
    scope: str = ""
    resource: str | None = None
    task: str | None = None
    details: tuple[ToolDetail, ...] = ()
    demand: StepUp = NO_DEMAND


def issue(act: Act, grant: Grant, *, config: Config) -> Issued:
    """Issue and return an access token for a task of the client.

    1. Authenticate the client, and check that it has the key to which the token will be bound; the client assertion and
    the DPoP proof cannot be used again. 2. Check that the task is the client's own, and live. 3. Narrow target, scopes
    and bounds. 4. Consult the policies. 5. Store the token as a holding: the token ends as soon as the agent ends, the
    task ends, or a key that the client proved is revoked or expires.

    Raises InvalidClient, InvalidProof, NonceNeeded or Unmet at step 1; InvalidGrant at step 2; InvalidTarget,
    InvalidScope or InvalidDetails at step 3; Forbidden (`access_denied`) at step 4.
    """
    authenticated = authenticate(act, grant.credentials, grant.unverified_proof, config=config, accepts_secret=True)
    client, possession, proved = authenticated
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
        raise InvalidTarget(
            "only another agent can get a token for an agent", hint="send `resource` with the URI of a resource"
        )
    longest = config.token_lifetime_s
    if not possession.is_bound:
        _check_exempt(act, client, target)
        if proved.acr == SECRET and target.uri == config.api:
            raise InvalidTarget(
                "a client that authenticates by a secret gets no token for the API of this server",
                hint="send `client_assertion`",
            )
        longest = min(longest, config.bearer_lifetime_s)
    scope = scopes_at(target, requested, available=available)
    access = TokenAccess(target, scope, narrow_details(grant.details, task=task.bounds, target=target))
    policy = consult_policies(act, client, task, access, acr=proved.acr)
    seconds = lifetime(now=act.now, longest=longest, ends=(client.ends, task.expires_at))
    return mint(act, authenticated, access, task=task, policy=policy, seconds=seconds, config=config)


def _check_exempt(act: Act, client: Client, target: Target) -> None:
    """Check that the client may have a token at the target that is bound to no key: the agent has a bearer exemption
    there. Otherwise raises InvalidProof.
    """
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


_NO_TASK, _NO_TASK_HINT = "task not found", "send the id of a live task of this agent, or leave `task` out"


def _own_task(act: Act, client: Client, id: str | None) -> Task:
    """Return the task that the client names by `id`, or the client's standing task for None. Raises InvalidGrant if the
    task is not live or not the client's.
    """
    if client.agent is None:
        if id is not None:
            raise InvalidGrant("only an agent can request a token for a task", hint="leave `task` out")
        return Task(
            task_id=TaskId(""),
            agent=AgentId(client.id),
            person=None,
            purpose="",
            scopes=client.scopes,
            bounds=(),
            state=TaskState.LIVE,
            created_at=act.now,
            expires_at=None,
        )
    standing = standing_id(client.agent.agent_id)
    try:
        if id is None or id == standing:
            registry.check_none_stopped(act.tx, "task", [standing])
            return standing_task(client.agent)
        if is_id(id, "tk"):  # any other text may be a secret in the wrong field
            # the ledger's field `task` is set only for a task of this agent; here the id is only claimed
            act.entry.detail = {"task": id}
        task = tasks.live(act.tx, id, now=act.now)
    except NotFound:
        raise InvalidGrant(_NO_TASK, hint=_NO_TASK_HINT) from None
    except Forbidden as error:
        # code for the ledger; the response says `invalid_grant`
        code = error.code if error.code == tasks.ELEVATION_ENDED else None
        raise InvalidGrant(error.message, hint=error.hint, code=code) from None
    if task.agent != client.id:
        raise InvalidGrant(_NO_TASK, hint=_NO_TASK_HINT)
    check_task(act, task)
    return task
