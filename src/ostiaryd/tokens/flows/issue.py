"""Issuing an access token: client credentials (RFC 6749 section 4.4), for a task, bound by DPoP (RFC 9449)."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from ostiary.core import dpop
from ostiary.core.bounds import ToolDetail, render_details
from ostiary.core.claims import ACCESS_TYP, AccessClaims, Confirmation, acting, actors, parse_scope, render_scope
from ostiary.core.errors import Forbidden, NotFound
from ostiary.core.jose import sign_jwt
from ostiaryd.ground.config import Config
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policies
from ostiaryd.registry.model import AgentId, Holding, HoldingId
from ostiaryd.registry.store import holdings, keys, resources
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Balance, State, Task, TaskId, standing_id, standing_task
from ostiaryd.tokens.model import (
    KIND,
    SECOND,
    InvalidGrant,
    InvalidTarget,
    Target,
    check_scopes,
    check_target,
    lifetime,
    narrow_details,
    resource_name,
    scopes_at,
    sole_resource,
)
from ostiaryd.trust import flows as trust
from ostiaryd.trust.flows import Client, Possession
from ostiaryd.trust.model import ACR, AMR, Credentials
from ostiaryd.trust.store import is_bearer


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A token request, parsed and not yet believed."""

    credentials: Credentials
    unverified_proof: str | None
    scope: str = ""
    resource: str | None = None
    task: str | None = None
    details: tuple[ToolDetail, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A token, and what its holder is told about it."""

    access_token: str = field(repr=False)
    is_bound: bool
    expires_in: int
    scope: str
    details: tuple[ToolDetail, ...]
    balances: list[Balance]
    next_nonce: str | None


def issue(act: Act, grant: Grant, *, config: Config) -> Issued:
    """Issue a token.

    1. The client proves itself, and that it has the key which the token will be bound to. 2. What proved it is used up,
    whatever comes of the request: who saw a refused one cannot bring it to an end with a key of his own. 3. The task is
    its own, and live. 4. Target, scopes and bounds are narrowed. 5. The policies permit it. 6. The token ends with
    whatever it rests on that ends first. 7. The token is held, so that it dies with its agent, its task and its keys.

    Raises InvalidClient, InvalidProof, NonceNeeded, InvalidGrant, InvalidTarget, InvalidScope, InvalidDetails,
    and Forbidden (`access_denied`).
    """
    client, possession = _authenticate(act, grant, config=config)
    trust.spend(act, client.assertion, possession.spend)
    task = _own_task(act, client, grant.task)
    asked, held = parse_scope(grant.scope), client.scopes & task.scopes
    check_scopes(asked, agent=client.scopes, task=task.scopes)
    target = _choose_target(act, grant.resource, asked=asked, held=held, config=config)
    scope = scopes_at(target, asked, held=held)
    details = narrow_details(grant.details, task=task.bounds, target=target)
    policy = _consult(act, client, task, target, scope)
    budgets = tasks.in_force(act.tx, task)
    seconds = lifetime(now=act.now, longest=config.token_lifetime_s, ends=(client.ends, task.expires_at))
    line = tuple(dict.fromkeys((client.id, *(link.agent for link in task.chain))))
    subject, actor = acting(line, person=task.person)
    claims = AccessClaims(
        iss=config.issuer,
        sub=subject,
        client_id=client.id,
        aud=target.uri,
        iat=act.now // SECOND,
        exp=act.now // SECOND + seconds,
        jti=act.new_id("tok"),
        scope=render_scope(scope),
        task=task.task_id,
        acr=ACR,
        amr=AMR,
        cnf=Confirmation(jkt=possession.jkt) if possession.jkt else None,
        authorization_details=render_details(details),
        act=actor,
        policy=policy,
        owner=client.owner,
        segment=client.segment,
        epoch=client.epoch,
        chain=list(task.chain),
        budgets=list(budgets),
    )
    _hold(act, claims, jkt=possession.jkt, client_jkt=client.jkt)
    signer = act.tx.keys.signer("token", config.token_alg)
    return Issued(
        access_token=sign_jwt(signer, typ=ACCESS_TYP, claims=claims),
        is_bound=claims.cnf is not None,
        expires_in=seconds,
        scope=claims.scope,
        details=details,
        balances=tasks.balances(act.tx, budgets, now=act.now),
        next_nonce=possession.next_nonce,
    )


def _authenticate(act: Act, grant: Grant, *, config: Config) -> tuple[Client, Possession]:
    """The client, and its key for this token; what proves both is still to be spent."""
    client = trust.check_client(act, grant.credentials, issuer=config.issuer)
    if grant.unverified_proof is None:
        if not is_bearer(act.tx, client.id):
            raise dpop.InvalidProof("the DPoP proof is missing", hint="every token is bound to a key: send `DPoP`")
        return client, Possession()
    possession = trust.check_possession(
        grant.unverified_proof, method="POST", uri=f"{config.issuer}/token", now=act.now, keys=act.tx.keys,
        config=config, purpose=b"as",
    )  # fmt: skip
    if possession.jkt != client.jkt:
        _check_key(act, client, str(possession.jkt))
    return client, possession


def _check_key(act: Act, client: Client, jkt: str) -> None:
    """Any key may be the one that a token is bound to, but not a known one that is another's or no longer good."""
    known = keys.get(act.tx, jkt)
    is_own = known is not None and known.agent == client.id and known.is_active(act.now)
    if (known is not None and not is_own) or resources.by_jkt(act.tx, jkt) is not None:
        raise dpop.InvalidProof("the key of the DPoP proof is another's, or has ended", hint="make a new one")


def _own_task(act: Act, client: Client, id: str | None) -> Task:
    """The live task that the client names, or its standing task. Raises InvalidGrant."""
    if client.agent is None:
        if id is not None:
            raise InvalidGrant("the guard of a resource has no tasks")
        return Task(
            task_id=TaskId(""), agent=AgentId(client.id), person=None, purpose="", scopes=client.scopes, bounds=(),
            state=State.LIVE, created_at=act.now, expires_at=None,
        )  # fmt: skip
    if id is None or id == standing_id(client.agent.agent_id):
        return standing_task(client.agent)
    act.entry.detail = {"task": id[:64]}  # claimed: `task` is set where it is the agent's own
    try:
        task = tasks.live(act.tx, id, now=act.now)
    except NotFound:
        raise InvalidGrant("there is no such task, or it is another agent's") from None
    except Forbidden as error:
        raise InvalidGrant(error.message, hint=error.hint) from None
    if task.agent != client.id:
        raise InvalidGrant("there is no such task, or it is another agent's")
    return task


def _choose_target(act: Act, uri: str | None, *, asked: frozenset[str], held: frozenset[str], config: Config) -> Target:
    """The resource that is named, or the only one that the scopes belong to. Raises InvalidTarget.

    One that nobody registered has none of the scopes of one that somebody did.
    """
    if uri is None:
        name = sole_resource(asked or held)
        if (resource := resources.get(act.tx, name)) is None:
            raise InvalidTarget(f"there is no resource `{name}`", hint="send `resource`")
        return Target(resource.uri, resource)
    if (resource := resources.by_uri(act.tx, uri)) is not None:
        return Target(uri, resource)
    check_target(uri)
    if config.resources == "registered":
        raise InvalidTarget("there is no such resource", hint="`ostiary resource create` registers it")
    for name in sorted({resource_name(scope) for scope in asked}):
        if resources.get(act.tx, name) is not None:
            raise InvalidTarget(f"scopes of `{name}` are for that resource", hint="ask for a token of its own")
    return Target(uri)


def _consult(act: Act, client: Client, task: Task, target: Target, scope: frozenset[str]) -> str:
    """The hash of the policies that permit the token. A guard hears its feed whatever they say, and gets nothing else.

    Raises Forbidden, InvalidTarget.
    """
    if client.agent is None:
        if not scope:
            raise InvalidTarget("the guard of a resource gets a token for its feed alone")
        return ""
    return policies.decide_issue(
        act, client.agent, task=task.task_id, resource=target.resource, uri=target.uri, scopes=scope
    )


def _hold(act: Act, claims: AccessClaims, *, jkt: str | None, client_jkt: str) -> None:
    """The agent was found active and the id is new in this act, so this goes straight to the table."""
    holdings.insert(
        act.tx,
        Holding(
            id=HoldingId(claims.jti), kind=KIND, agent=AgentId(claims.client_id), task=claims.task or None, jkt=jkt,
            client_jkt=client_jkt, audience=claims.aud, expires_at=claims.exp * SECOND,
        ),
    )  # fmt: skip
    entry = act.entry
    entry.task, entry.resource, entry.token = claims.task or None, claims.aud, claims.jti
    entry.detail = {"scope": claims.scope, "seconds": claims.exp - claims.iat}
    if claims.act is not None:
        entry.actors = list(actors(claims))
    if claims.sub.startswith("pe_"):
        entry.person = claims.sub
    if jkt is not None and jkt != client_jkt:
        entry.detail["bound_to"] = jkt
