"""Vault tokens: login, renewal, revocation. A token is a holding of its agent, and ends with its task and with
the credential of its login.
"""

from __future__ import annotations

from typing import NamedTuple

from ostiary.authorization.assurance import BEARER, SECRET
from ostiary.authorization.bounds import parse_details
from ostiary.authorization.claims import scopes
from ostiary.protocol.errors import Invalid, Refused
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId, Holding, HoldingId, Root
from ostiaryd.secrets.flows.callers import TokenRefused, VaultCaller, token_digest, verify_claims
from ostiaryd.secrets.flows.seal import check_open
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.model.token import (
    DEFAULT_S,
    KIND,
    LONGEST_S,
    VaultToken,
    choose_end,
    network_of_address,
    render_token,
)
from ostiaryd.secrets.store import tokens as store
from ostiaryd.tasks.model import standing_id
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model import Credentials

FORGOTTEN_AT_ONCE = 1000


class LoginRefused(Invalid):
    """The credentials of a login are wrong, or their holder may not log in."""

    code = "login_refused"


class Login(NamedTuple):
    """A new token in plain text, with its record, the name of its agent, and its task. The token is shown only once."""

    text: str
    token: VaultToken
    agent: str
    task: str

    def __repr__(self) -> str:
        """Return only the accessor: the token is secret."""
        return f"Login({self.token.accessor})"


def login_by_token(act: Act, request: trust.Request, *, role: str, address: str, config: Config) -> Login:
    """Log an agent in with an access token for this server's API: a bearer token, or a bound token with its proof.

    The Vault token ends with the access token, and has its task, scopes and bounds. Raises LoginRefused.
    """
    check_open(act.tx)
    act.check_granting()
    try:
        claims = verify_claims(act, request, config=config)
    except Refused as refusal:
        if refusal.is_challenge:
            raise
        raise LoginRefused(f"error validating token: {refusal.message}", hint=refusal.hint, code=refusal.code) from None
    agent = registry.find_agent(act.tx, claims.client_id)
    act.entry.agent, act.entry.owner, act.entry.task = agent.agent_id, agent.owner, claims.task or None
    if role not in ("", agent.name):
        raise LoginRefused("the role could not be found", hint="the role is the name of the agent")
    access = registry.get_holding(act.tx, claims.jti)
    if access is None:
        raise LoginRefused("error validating token: the token has ended")
    return _issue(
        act,
        agent=agent.agent_id,
        name=agent.name,
        task=claims.task or standing_id(agent.agent_id),
        address=address,
        source="jwt",
        acr=BEARER,  # the Vault token itself needs no proof of a key
        granted=scopes(claims),
        details=claims.authorization_details,
        access=access,
        end=access.expires_at,
        config=config,
    )


def login_by_secret(act: Act, role_id: str, secret_id: str, *, address: str, config: Config) -> Login:
    """Log an agent in with its id and a client secret. Raises LoginRefused."""
    check_open(act.tx)
    act.check_granting()
    try:
        client = trust.check_secret(
            act, Credentials(unverified_assertion=None, client_id=role_id, unverified_secret=secret_id)
        )
    except Refused as refusal:
        raise LoginRefused(f"invalid role or secret ID: {refusal.message}", hint=refusal.hint) from None
    assert client.agent is not None  # only agents have client secrets
    return _issue(
        act,
        agent=client.agent.agent_id,
        name=client.agent.name,
        task=standing_id(client.agent.agent_id),
        address=address,
        source="approle",
        acr=SECRET,
        granted=client.scopes,
        details=[],
        access=None,
        end=client.ends,
        config=config,
    )


def _issue(
    act: Act,
    *,
    agent: AgentId,
    name: str,
    task: str,
    address: str,
    source: str,
    acr: str,
    granted: frozenset[str],
    details: list[dict[str, object]],
    access: Holding | None,
    end: int | None,
    config: Config,
) -> Login:
    """Issue a token. The agent needs an exemption for bearer tokens at this server's API, since a Vault token
    is not bound to a key. Raises LoginRefused.
    """
    resource = registry.get_resource_by_uri(act.tx, config.api)
    if resource is None or not trust.may_have_bearer(act.tx, agent, resource.resource_id, registration=""):
        raise LoginRefused(
            "the agent may not have bearer tokens for this server",
            hint=f"ostiary agent allow-bearer {name} --resource ostiary",
            code="not_exempt",
        )
    latest = act.now + LONGEST_S * SECOND
    last = latest if end is None else min(latest, end)
    text = render_token(act.tx.random(32))
    token = VaultToken(
        holding=act.new_id("vt"),
        accessor=act.tx.random(16).hex(),
        network=network_of_address(address),
        seconds=DEFAULT_S,
        created_at=act.now,
        renewed_at=act.now,
        expires_at=min(act.now + DEFAULT_S * SECOND, last),
        source=source,
        acr=acr,
        scopes=granted,
        details=parse_details(details),
    )
    registry.add_holding(
        act,
        Holding(
            id=HoldingId(token.holding),
            kind=KIND,
            agent=agent,
            task=task,
            parent=None if access is None else access.id,
            client_jkt=None if access is None else access.client_jkt,
            audience=config.api,
            expires_at=last,
        ),
    )
    store.insert(act.tx, token_digest(act.tx.keys, text), token)
    act.entry.token, act.entry.task = token.holding, task
    registry.note(act, object=token.holding, accessor=token.accessor, method=source, network_bound=token.network)
    return Login(text, token, name, task)


def renew_token(act: Act, caller: VaultCaller, unverified_token: str, increment_s: int | None) -> VaultToken:
    """Extend a token, at most to the end of its holding, and return the token. Raises TokenRefused if the
    caller used an access token.
    """
    token = _token_of(caller)
    registry.note(act, object=token.holding)
    holding = registry.get_holding(act.tx, token.holding)
    assert holding is not None  # the caller was authenticated in this act
    end = min(choose_end(token, increment_s, now=act.now), holding.expires_at)
    store.renew(act.tx, token_digest(act.tx.keys, unverified_token), expires_at=end)
    renewed = store.get(act.tx, token_digest(act.tx.keys, unverified_token))
    assert renewed is not None
    return renewed


def revoke_token(act: Act, caller: VaultCaller) -> None:
    """Revoke the token of the caller. Raises TokenRefused if the caller used an access token."""
    token = _token_of(caller)
    registry.note(act, object=token.holding)
    registry.end_holdings(act, Root.HOLDING, token.holding, why="revoked by its holder")


def _token_of(caller: VaultCaller) -> VaultToken:
    if caller.token is None:
        raise TokenRefused("an access token has no Vault token", hint="revoke it at /revoke")
    return caller.token


async def forget_tokens(world: World) -> None:
    """Delete the records of tokens that have expired."""
    await world.writer.submit(lambda tx: store.prune(tx, limit=FORGOTTEN_AT_ONCE))
