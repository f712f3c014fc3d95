"""The common part of all grants: authentication of the client with its key, and the token that is signed and stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec
from msgspec import structs

from ostiary.authorization import assurance
from ostiary.authorization.assurance import StepUp
from ostiary.authorization.bounds import ToolDetail, render_details
from ostiary.authorization.budget import MAX_BUDGETS, InvalidBudget
from ostiary.authorization.claims import ACCESS_TYP, AccessClaims, Actor, acting, actors, render_scope
from ostiary.protocol import dpop
from ostiary.protocol.client_certificate import ClientCertificate
from ostiary.protocol.errors import Invalid
from ostiary.protocol.jose import MAX_TOKEN_BYTES, PublicKey, sign_jwt
from ostiaryd.ground.config import Config
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policy
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId, Holding, HoldingId, is_person_id
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Balance, Task
from ostiaryd.tokens.flows.restrictions import restrict_scopes
from ostiaryd.tokens.model import KIND, SECOND, InvalidRequest, InvalidTarget, Target, UnauthorizedClient, Unmet
from ostiaryd.trust import flows as trust
from ostiaryd.trust.flows import Client, Possession
from ostiaryd.trust.model import Credentials, InvalidClient, name_claimed
from ostiaryd.trust.model.clients import ClientKind, OAuthClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A token response with the access token. `expires_in` is its lifetime in seconds, `details` are its bounds.

    `balances` state the limit, the spent and the remaining units of each budget of the task. `next_nonce` is a new DPoP
    nonce if more than half of the lifetime of the client's nonce is over, otherwise None.
    """

    access_token: str = field(repr=False)
    token_type: TokenType
    expires_in: int
    scope: str
    details: tuple[ToolDetail, ...]
    balances: list[Balance]
    next_nonce: str | None


TokenType = Literal["DPoP", "Bearer"]


def token_type_of(claims: AccessClaims) -> TokenType:
    """Return `token_type` of an access token: `DPoP` if a DPoP key is bound to it, otherwise `Bearer`, also for a token
    that only a certificate is bound to (RFC 8705 section 3).
    """
    return "Bearer" if claims.cnf is None or claims.cnf.jkt is None else "DPoP"


class Proved(msgspec.Struct, frozen=True):
    """The level of a client's or person's authentication (`acr`), its time in seconds since the epoch (`at`), and its
    methods (`amr`).

    With an empty `amr`, the methods that belong to `acr` apply.
    """

    acr: str
    at: int
    amr: tuple[str, ...] = ()


class Authenticated(NamedTuple):
    """A client, the key that its token will be bound to, and the strength of the authentication."""

    client: Client
    possession: Possession
    proved: Proved


class TokenAccess(NamedTuple):
    """The access that a token gives: its target, and its scopes and bounds there."""

    target: Target
    scope: frozenset[str]
    details: tuple[ToolDetail, ...]


class Sender(NamedTuple):
    """The id of the client that a form names, and the credentials in the request. Nothing has been verified.

    `keys` are the result of `find_client_keys`.
    """

    client_id: str
    credentials: Credentials
    unverified_proof: str | None
    keys: Sequence[PublicKey] | None


class Identified(NamedTuple):
    """An authenticated client that acts for a person (`client`, as this act reads it), and its verified keys: the
    thumbprint of the client's own key (`jkt`, None without one), and the key that the tokens are bound to
    (`possession`). `agent` is the client if it is a registered agent.
    """

    client: OAuthClient
    jkt: str | None
    possession: Possession
    agent: Client | None = None


def authenticate(
    act: Act,
    credentials: Credentials,
    unverified_proof: str | None,
    *,
    config: Config,
    accepts_secret: bool = False,
    path: str = "/token",
) -> Authenticated:
    """Authenticate a client.

    Assertion and DPoP proof count as used even if the request is refused, so that a copy of the request is useless. A
    client secret is accepted only if `accepts_secret`; its token is bound to no key. Raises InvalidClient for a failed
    authentication, InvalidRequest for a secret together with a DPoP proof, InvalidProof or NonceNeeded for the proof.
    """
    if accepts_secret and credentials.unverified_secret is not None:
        client = trust.check_secret(act, credentials)
        method = trust.get_certificate_client(act.tx, client.id)
        _bind(act, client.id, Possession(), None, is_demanded=method is not None and method.is_bound)
        if unverified_proof is not None:
            hint = "authenticate with `client_assertion`, or leave the DPoP proof out"
            raise InvalidRequest("a client that authenticates by a secret gets only bearer tokens", hint=hint)
        return Authenticated(client, Possession(), Proved(assurance.SECRET, act.now // SECOND))
    client = trust.check_client(act, credentials, config=config)
    possession, acr = _check_possession(act, client, credentials, unverified_proof, path=path, config=config)
    trust.spend(act, client.assertion, possession.spend)
    return Authenticated(client, possession, Proved(acr, act.now // SECOND))


def identify(
    act: Act, sender: Sender, *, config: Config, path: str = "/token", grant_type: str | None = None
) -> Identified:
    """Authenticate the client that sent a form to `path`, and return the client with its verified keys.

    A public client proves only its DPoP key. Raises InvalidClient if the authentication fails, InvalidProof or
    NonceNeeded for the proof, and UnauthorizedClient if the client is not registered for `grant_type`.
    """
    proofs = _identify(act, sender, config=config, path=path)
    if grant_type is not None and grant_type not in proofs.client.metadata.grant_types:
        hint = "register the client again, with this grant type in `grant_types`"
        raise UnauthorizedClient(f"the client is not registered for the grant type {grant_type}", hint=hint)
    return proofs


def _identify(act: Act, sender: Sender, *, config: Config, path: str) -> Identified:
    if (registered := trust.get_oauth_client(act.tx, sender.client_id)) is None:
        act.entry.object = name_claimed(sender.client_id)
    client, unverified_proof = trust.check_usable(registered), sender.unverified_proof
    if client.kind is ClientKind.AGENT:
        if sender.credentials.unverified_secret is not None:
            agent = trust.check_secret(act, sender.credentials)
            possession, _ = _check_possession(
                act, agent, sender.credentials, unverified_proof, path=path, config=config
            )
            trust.spend(act, None, possession.spend)
        else:
            agent, possession, _ = authenticate(act, sender.credentials, unverified_proof, config=config, path=path)
        if agent.id != client.client_id:
            raise InvalidClient("the credentials of the request belong to another client than `client_id`")
        return Identified(client, agent.jkt, possession, agent)
    proved = trust.authenticate_oauth_client(act, sender.credentials, sender.keys, config=config)
    if proved.client.client_id != client.client_id:
        raise InvalidClient("the credentials of the request belong to another client than `client_id`")
    possession = Possession()
    if unverified_proof is not None:
        possession = _prove_possession(act, unverified_proof, path=path, config=config)
        if registry.find_key_owner(act.tx, str(possession.jkt)) is not None:
            raise dpop.InvalidProof(
                "the key of the DPoP proof belongs to another client", hint="generate a new key for the proof"
            )
    is_demanded = client.metadata.tls_client_certificate_bound_access_tokens
    possession = _bind(act, client.client_id, possession, sender.credentials.certificate, is_demanded=is_demanded)
    trust.spend(act, proved.assertion, possession.spend)
    return Identified(client, proved.jkt, possession)


def _prove_possession(act: Act, unverified_proof: str, *, path: str, config: Config) -> Possession:
    return trust.check_possession(
        unverified_proof,
        method="POST",
        uri=f"{config.issuer}{path}",
        now=act.now,
        keys=act.tx.keys,
        config=config,
        purpose=b"as",
    )


def _check_possession(
    act: Act, client: Client, credentials: Credentials, unverified_proof: str | None, *, path: str, config: Config
) -> tuple[Possession, str]:
    """Return the keys that the token will be bound to, and the `acr` of the request. If assertion, DPoP proof and
    certificate prove two different registered keys of the client, the `acr` is the level of two keys.

    A certificate that the agent requested itself does not count as a second key. Without a proof and without a
    certificate, the token is bound to no key; the caller must refuse or allow this.
    """
    possession, shown = Possession(), credentials.certificate
    keys = {client.jkt} if client.certificate is None or client.certificate.is_second else set[str | None]()
    if unverified_proof is not None:
        possession = _prove_possession(act, unverified_proof, path=path, config=config)
        if possession.jkt != client.jkt and _is_registered(act, client, str(possession.jkt)):
            keys.add(possession.jkt)
    method = trust.get_certificate_client(act.tx, client.id)
    is_demanded = method is not None and method.is_bound
    possession = _bind(act, client.id, possession, shown, is_demanded=is_demanded)
    if shown is not None and client.agent is not None and client.certificate is None:
        second = trust.prove_second(act, client.agent, shown)
        keys |= {second.jkt} if second is not None and second.is_second else set()
    if not possession.is_bound:
        return possession, assurance.BEARER
    return possession, assurance.TWO_KEYS if len(keys) > 1 else assurance.KEY


def _bind(
    act: Act, client_id: str, possession: Possession, shown: ClientCertificate | None, *, is_demanded: bool
) -> Possession:
    """Return `possession` with the client certificate added, if there is no DPoP key or if `is_demanded` (RFC 8705
    section 3.4). Otherwise return it unchanged.

    Raises InvalidRequest if `is_demanded` and no certificate was shown, and InvalidClient if the certificate cannot
    bind tokens of the client.
    """
    if is_demanded and shown is None:
        hint = "connect with a client certificate (mutual TLS)"
        raise InvalidRequest("the tokens of this client are bound to its certificate, and none was shown", hint=hint)
    if shown is None or (possession.jkt is not None and not is_demanded):
        return possession
    trust.check_bindable(act, client_id, shown)
    return structs.replace(possession, certificate=shown.thumbprint)


def _is_registered(act: Act, client: Client, jkt: str) -> bool:
    """Return whether the proved key `jkt` is an active registered key of the client.

    Raises InvalidProof for a key of another client, a revoked or expired key, or a key of a person that differs from
    the key that authenticated the person. Any other unregistered key is allowed.
    """
    if is_person_id(client.id):
        raise dpop.InvalidProof(
            "a person's token is bound to the person's own key", hint="sign the DPoP proof with the key of the person"
        )
    key = registry.get_key(act.tx, jkt)
    if key is not None and key.agent == client.id:
        if not key.is_active(act.now):
            raise dpop.InvalidProof("the key of the DPoP proof was revoked or has expired", hint="generate a new key")
        return True
    if registry.find_key_owner(act.tx, jkt) is not None:
        raise dpop.InvalidProof("the key of the DPoP proof belongs to another client", hint="generate a new key")
    return False


_ACR_HINTS = {
    assurance.TWO_KEYS: "prove a second registered key with a DPoP proof",
    assurance.PERSON: "ask the person at `/bc-authorize`",
}
"""`acr` level: hint for a request that needs this level."""


def check_demand(proved: Proved, demand: StepUp, *, now: int) -> None:
    """Check that the client's authentication has a level and an age that the request demands (RFC 9470 section 5).
    Raises Unmet otherwise.
    """
    if demand.acr_values and proved.acr not in demand.acr_values:
        hint = "; ".join(_ACR_HINTS[value] for value in demand.acr_values if value in _ACR_HINTS)
        raise Unmet(f"the request does not accept the `acr` of the authentication, {proved.acr or 'none'}", hint=hint)
    if demand.max_age is not None and now // SECOND - proved.at > demand.max_age:
        raise Unmet(
            f"the authentication is older than {demand.max_age} seconds",
            hint="authenticate again, and request a new token",
        )


def consult_policies(act: Act, client: Client, task: Task, access: TokenAccess, *, acr: str) -> str:
    """Check that the policies permit the token, and return the hash of the policy set. For guards and persons no policy
    decides, and the result is empty: they get only scopes of this server's API. Raises Forbidden if the policies deny,
    InvalidTarget if a guard or a person requests another target.
    """
    if client.agent is None:
        if not access.scope:
            raise InvalidTarget(
                "guards and persons get tokens for this server's API only",
                hint="use the credential of an agent: ostiary agent create --help",
            )
        return ""
    return policy.decide_issue(
        act,
        client.agent,
        policy.TaskChain.of(task),
        resource=access.target.resource,
        uri=access.target.uri,
        scopes=access.scope,
        details=access.details,
        acr=acr,
    )


def mint(
    act: Act,
    authenticated: Authenticated,
    access: TokenAccess,
    *,
    task: Task,
    parent: str | None = None,
    policy: str,
    seconds: int,
    config: Config,
) -> Issued:
    """Sign an access token, store its holding, and return the token response.

    `task.chain` lists the agents through which the task came. `parent` is the id of the token from which this one
    derives; the new token ends with it. Raises Invalid and InvalidBudget if the token would be too large for a guard to
    read, and Unmet and Forbidden if a restriction of an agent in the chain excludes the token. Raises ClockJumped while
    the clock is not confirmed, except for tokens for the server's own API: with those, administrators stop agents and
    confirm the clock.
    """
    client, possession, proved = authenticated
    target, scope, details = access
    if target.uri != config.api:
        act.check_granting()
    if client.agent is not None:
        scope = restrict_scopes(act, client.agent, task, target, scope, acr=proved.acr, at=proved.at, config=config)
    agents = tuple(dict.fromkeys((client.id, *(link.agent for link in task.chain))))
    subject, actor = acting(agents, person=task.person)
    budgets = tasks.in_force(act.tx, task)
    if len(budgets) > MAX_BUDGETS:
        hint = "limits of parent tasks and daily limits of every agent in the chain count too"
        raise InvalidBudget(f"more than {MAX_BUDGETS} budget limits apply to this task", hint=hint)
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
        acr=proved.acr,
        amr=list(proved.amr) or assurance.AMRS.get(proved.acr, []),
        auth_time=proved.at,
        cnf=possession.confirmation,
        authorization_details=render_details(details),
        act=actor,
        may_act=None if target.agent is None else Actor(target.agent.agent_id),
        policy=policy,
        owner=client.owner,
        segment=client.segment,
        model="" if client.agent is None else client.agent.model,
        risk_tier="" if client.agent is None else client.agent.risk_tier,
        epoch=client.epoch,
        registration=client.registration,
        chain=list(task.chain),
        budgets=list(budgets),
        memory=task.memory or "",
    )
    signer = act.tx.keys.signer("token", config.token_alg)
    token = sign_jwt(signer, typ=ACCESS_TYP, claims=claims)
    if len(token) > MAX_TOKEN_BYTES:
        raise Invalid(f"the token would be longer than {MAX_TOKEN_BYTES} bytes", hint="request fewer bounds and scopes")
    _hold(act, claims, jkt=possession.bound_to, client_jkt=client.jkt, parent=parent, ath=dpop.hash_token(token))
    if target.agent is not None or target.uri == config.api:  # the agent sends this token back to this server
        act.tx.keys.verified.add(token, signer.public.kid, claims)
    return Issued(
        access_token=token,
        token_type=token_type_of(claims),
        expires_in=seconds,
        scope=claims.scope,
        details=details,
        balances=tasks.balances(act.tx, budgets, now=act.now),
        next_nonce=possession.next_nonce,
    )


def _hold(
    act: Act, claims: AccessClaims, *, jkt: str | None, client_jkt: str | None, parent: str | None, ath: str
) -> None:
    """Store the holding of a token without checks: the caller checked in this act that the agent is active, and made a
    new id.
    """
    registry.insert_holding(
        act.tx,
        Holding(
            id=HoldingId(claims.jti),
            kind=KIND,
            agent=AgentId(claims.client_id),
            task=claims.task or None,
            parent=None if parent is None else HoldingId(parent),
            jkt=jkt,
            client_jkt=client_jkt,
            audience=claims.aud,
            ath=ath,
            expires_at=claims.exp * SECOND,
        ),
    )
    entry = act.entry
    entry.task, entry.resource, entry.token = claims.task or None, claims.aud, claims.jti
    watched = {name: value for name, value in (entry.detail or {}).items() if name in ("watched", "errors")}
    entry.detail = watched | {"scope": claims.scope, "seconds": claims.exp - claims.iat}
    if claims.cnf is None:
        entry.detail["acr"] = claims.acr
    if claims.act is not None:
        entry.actors = list(actors(claims))
    if is_person_id(claims.sub):
        entry.person = claims.sub
    if jkt is not None and jkt != client_jkt:
        entry.detail["bound_to"] = jkt
