"""Token exchange (RFC 8693): an agent exchanges another agent's token that was issued for it (`aud` and `may_act`), or
exchanges its own token for a narrower one.

Stricter than the RFC: only access tokens of this server are accepted; the client that exchanges is always the actor,
`actor_token` cannot name another client; a token that is not bound to a key is not exchanged; nothing in the new token
is wider than in the subject token.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from ostiary.authorization.assurance import NO_DEMAND, StepUp, weaker
from ostiary.authorization.bounds import ToolDetail, parse_details
from ostiary.authorization.claims import AccessClaims, InvalidScope, Link, check_access, parse_scope, render_scope
from ostiary.protocol import dpop, jose
from ostiary.protocol.errors import Forbidden, NotFound
from ostiary.protocol.nearest import nearest_hint
from ostiaryd.ground.config import Config
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policy
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, agent_uri
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, check_line
from ostiaryd.tokens.flows.mint import (
    Authenticated,
    Issued,
    Proved,
    TokenAccess,
    authenticate,
    check_demand,
    consult_policies,
    mint,
)
from ostiaryd.tokens.flows.target import choose_target
from ostiaryd.tokens.model import (
    InvalidGrant,
    InvalidRequest,
    InvalidTarget,
    Target,
    UnauthorizedClient,
    lifetime,
    narrow_details,
    scopes_at,
)
from ostiaryd.trust import flows as trust
from ostiaryd.trust.flows import Possession
from ostiaryd.trust.model import SECOND, AccessRefused, Credentials


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """The parsed parameters of a token exchange request. Nothing in the request has been verified."""

    credentials: Credentials
    unverified_proof: str | None
    unverified_subject: str
    unverified_actor: str | None = None
    scope: str = ""
    resource: str | None = None
    audience: str | None = None
    details: tuple[ToolDetail, ...] = ()
    demand: StepUp = NO_DEMAND


def exchange(act: Act, request: Exchange, *, config: Config) -> Issued:
    """Return a new token for the client in exchange for a subject token.

    1. Authenticate the client, and check that the client has the key of the new token. 2. Check that the subject token
    is live, and that the client may exchange it. 3. Check that the actor token, if sent, is the client's own. 4. Check
    that the client may join the delegation chain of the subject token. The new token states the weaker `acr` of subject
    token and client. 5. Narrow target, scopes and bounds. 6. Consult the policies about the delegation and the token.
    7. Store the new token as a holding that ends with the subject token.

    Raises InvalidClient, UnauthorizedClient, InvalidProof, NonceNeeded, InvalidRequest (either token, section 2.2.2),
    Unmet, InvalidTarget, InvalidScope, InvalidDetails, and Forbidden (`access_denied`).
    """
    client, possession, proved = authenticate(act, request.credentials, request.unverified_proof, config=config)
    if (agent := client.agent) is None:
        raise UnauthorizedClient("only agents can exchange tokens")
    if not possession.is_bound:
        raise dpop.InvalidProof(
            "a DPoP-bound token cannot be exchanged for a bearer token", hint="send a DPoP proof in the header `DPoP`"
        )
    subject = _verify(act, request.unverified_subject, of="subject", config=config)
    act.entry.detail = {"subject_token": subject.jti}
    _check_recipient(subject, agent, config=config)
    if request.unverified_actor is not None:
        actor = _verify(act, request.unverified_actor, of="actor", config=config)
        _check_actor(actor, agent, possession, config=config)
    task, line = _step(act, subject, agent)
    proved = Proved(weaker(proved.acr, subject.acr), min(proved.at, subject.auth_time or subject.iat))
    check_demand(proved, request.demand, now=act.now)

    available = parse_scope(subject.scope).intersection(agent.scopes, task.scopes, *(one.scopes for one in line))
    requested = parse_scope(request.scope)
    if extra := requested - available:
        hint = nearest_hint(min(extra), available) or "request fewer scopes"
        raise InvalidScope(
            f"the subject token, its task, or an agent of the chain lacks the scopes {render_scope(extra)}", hint=hint
        )
    target = _target(act, request, subject, agent, requested=requested, available=available, config=config)
    scope = scopes_at(target, requested, available=available)
    details = narrow_details(request.details, task=parse_details(subject.authorization_details), target=target)
    if not scope and not details:
        raise InvalidTarget("the subject token has no scope and no bounds at this target")

    access = TokenAccess(target, scope, details)
    if subject.client_id != agent.agent_id:
        _consult(act, line[0], agent, task, access)
    policy = consult_policies(act, client, task, access, acr=proved.acr)
    ends = (client.ends, task.expires_at, subject.exp * SECOND, *(one.expires_at for one in line))
    return mint(
        act,
        Authenticated(client, possession, proved),
        access,
        task=task,
        parent=subject.jti,
        policy=policy,
        seconds=_seconds(act, ends, config=config),
        config=config,
    )


def _verify(act: Act, unverified_token: str, *, of: str, config: Config) -> AccessClaims:
    """Verify an access token of this server, and return its claims. Raises InvalidRequest if the token is not live or
    not bound to a key, or if its agent is not active. `of` (`subject` or `actor`) names the parameter in errors.
    """
    try:
        claims = trust.verify_token(unverified_token, keys=act.tx.keys)
        check_access(claims, issuer=config.issuer, audience=claims.aud, now=act.now)
        trust.live_caller(act.tx, claims, now=act.now)
    except (AccessRefused, jose.InvalidToken) as error:
        raise InvalidRequest(f"`{of}_token`: {error.message}", hint=error.hint) from None
    if claims.cnf is None:
        raise InvalidRequest(f"`{of}_token`: the token is not bound to a key", hint="bearer tokens cannot be exchanged")
    return claims


def _check_recipient(subject: AccessClaims, agent: Agent, *, config: Config) -> None:
    """Check that the client may exchange the subject token: the token is the client's own, or the client is both its
    audience (`aud`) and named in `may_act`. Raises InvalidRequest otherwise.
    """
    if subject.client_id == agent.agent_id:
        return
    if subject.aud != agent_uri(config.issuer, agent.name):
        hint = f"send a token that was requested with the audience {agent_uri(config.issuer, agent.name)}"
        raise InvalidRequest("`subject_token`: the audience is not this client (`aud`)", hint=hint)
    if subject.may_act is None or subject.may_act.sub != agent.agent_id:
        raise InvalidRequest("`subject_token`: `may_act` does not name this client")


def _check_actor(actor: AccessClaims, agent: Agent, possession: Possession, *, config: Config) -> None:
    """Check that the actor token was issued to the client for this server, has no delegation chain, and is bound to the
    key that the request proves. Raises InvalidRequest otherwise.
    """
    if actor.client_id != agent.agent_id:
        raise InvalidRequest(
            "`actor_token`: the token was issued to another client",
            hint="send an actor token of the client that exchanges, or none",
        )
    if actor.aud != config.api:
        raise InvalidRequest(
            "`actor_token`: the audience is not this server (`aud`)", hint=f"get an actor token for {config.api}"
        )
    if actor.sub != agent.agent_id or actor.chain:
        raise InvalidRequest(
            "`actor_token`: the token was issued through another agent",
            hint="send a token without a chain: two delegation chains cannot be combined",
        )
    if actor.cnf != possession.confirmation:
        raise InvalidRequest(
            "`actor_token`: the token is bound to another key than that of the request",
            hint="sign the DPoP proof with the key of the actor token",
        )


def _step(act: Act, subject: AccessClaims, agent: Agent) -> tuple[Task, list[Agent]]:
    """Return the task of the subject token with the chain that the new token gets, and the agents of that chain, the
    nearest first.

    Raises InvalidRequest if an agent of the chain is not active or `agent` may not join the chain.
    """
    links = list(subject.chain)
    if subject.client_id != agent.agent_id:
        links.insert(0, Link(subject.client_id, subject.epoch, subject.task))
    try:
        task = tasks.live(act.tx, subject.task, now=act.now)
        line = [registry.active_agent(act.tx, link.agent, now=act.now) for link in links]
        if any(link.epoch < one.epoch for link, one in zip(links, line, strict=True)):
            raise Forbidden(
                "the tokens of an agent of the token's delegation chain were ended after the token was issued",
                hint="request a new token for the task",
            )
        if line:
            check_line(agent, line)
    except (Forbidden, NotFound) as error:
        raise InvalidRequest(f"`subject_token`: {error.message}", hint=error.hint) from None
    chain = tuple(tasks.link_of(one, link.task) for link, one in zip(links, line, strict=True))
    return replace(task, agent=agent.agent_id, chain=chain, restricted=tasks.restricted_agents(line, now=act.now)), line


def _target(
    act: Act,
    request: Exchange,
    subject: AccessClaims,
    agent: Agent,
    *,
    requested: frozenset[str],
    available: frozenset[str],
    config: Config,
) -> Target:
    """Return the target of the new token. If an agent exchanges its own token, the audience stays the same; otherwise
    the request may name another. Raises InvalidTarget for two targets, for a new audience of the agent's own token, and
    if the target is the client itself.
    """
    uri = request.resource
    if request.audience is not None:
        named = _find_resource_uri(act, request.audience, config=config)
        if uri not in (None, named):
            raise InvalidTarget("`resource` and `audience` name two different targets", hint="send only one of the two")
        uri = named
    if subject.client_id == agent.agent_id:
        if uri not in (None, subject.aud):
            raise InvalidTarget(
                "the agent's own token keeps its audience",
                hint=f"leave `resource` and `audience` out, or send {subject.aud}",
            )
        uri = subject.aud
    target = choose_target(act, uri, requested=requested, available=available, config=config)
    if target.agent is not None and target.agent.agent_id == agent.agent_id:
        raise InvalidTarget(
            "the target of the new token cannot be the client itself", hint="name a resource, or another agent"
        )
    return target


def _find_resource_uri(act: Act, audience: str, *, config: Config) -> str:
    """Return the resource identifier (URI) for `audience`: the name of a resource, the client id of an agent, or a URI
    (section 2.1). Raises InvalidTarget for another text.
    """
    if audience.startswith("ag_") and (agent := registry.get_agent(act.tx, audience)) is not None:
        return agent_uri(config.issuer, agent.name)
    if (resource := registry.get_resource(act.tx, audience)) is not None:
        return resource.uri
    if "://" not in audience:
        raise InvalidTarget(
            "`audience` names no resource and no agent", hint="send the name or URI of a resource, or a client id"
        )
    return audience


def _consult(act: Act, giver: Agent, receiver: Agent, task: Task, access: TokenAccess) -> None:
    """Check that the policies permit `giver` to delegate the task with this access to `receiver`.

    Raises InvalidRequest if not, as for any subject token that cannot be exchanged.
    """
    try:
        policy.check_delegation(
            act,
            giver,
            receiver,
            policy.TaskChain(task.task_id, task.chain[1:], task.person),
            scopes=access.scope,
            details=access.details,
            depth=len(task.chain),
        )
    except Forbidden as error:
        raise InvalidRequest(f"`subject_token`: {error.message}", hint=error.hint) from None


def _seconds(act: Act, ends: Iterable[int | None], *, config: Config) -> int:
    try:
        return lifetime(now=act.now, longest=config.token_lifetime_s, ends=ends)
    except InvalidGrant as error:
        raise InvalidRequest(error.message) from None
