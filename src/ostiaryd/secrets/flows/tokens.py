"""Vault tokens: issue, renewal, revocation. A token is a holding of its agent, and ends with its task and with
the credential of its login.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from ostiary.authorization.assurance import BEARER
from ostiary.authorization.bounds import ToolDetail
from ostiary.protocol.errors import Forbidden, Invalid, NotFound
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId, Holding, HoldingId, Root
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.callers import (
    LoginRefused,
    TokenRefused,
    VaultCaller,
    caller_of,
    has_expired,
    token_digest,
)
from ostiaryd.secrets.flows.policies import lists_of
from ostiaryd.secrets.model.login_role import are_within
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.model.token import (
    DEFAULT_S,
    LONGEST_S,
    MAX_ABOVE,
    NO_OPTIONS,
    TOKEN_KIND,
    TokenOptions,
    VaultToken,
    choose_end,
    network_of_address,
    render_token,
)
from ostiaryd.trust import flows as trust

FORGOTTEN_AT_ONCE = 1000


class LoginGrant(NamedTuple):
    """The authority of a new token, which comes from a login or from the parent token: its agent, task, scopes and
    bounds.

    `source`: the login method, or `token` for a child token. `above`: the access token, secret ID or parent token with
    which the new token ends; None: none. `end`: the latest end of the token, in microseconds; None: no such limit.
    """

    agent: AgentId
    name: str
    task: str
    source: str
    acr: str
    scopes: frozenset[str]
    details: tuple[ToolDetail, ...]
    above: Holding | None
    end: int | None


class Login(NamedTuple):
    """A new token as text, with its record, the name of its agent, and its task. The server shows the text only
    once.
    """

    text: str
    token: VaultToken
    agent: str
    task: str

    def __repr__(self) -> str:
        """Return only the accessor: the token is secret."""
        return f"Login({self.token.accessor})"


def create_child(
    act: Act,
    caller: VaultCaller,
    options: TokenOptions,
    *,
    seconds: int,
    address: str,
    networks: list[str],
    config: Config,
) -> Login:
    """Create a child token of the caller's token with a lifetime of `seconds`, and return it. The child has the same
    agent, task, scopes and bounds, and ends at the latest when the caller's token expires.

    If the caller's token is revoked, its child tokens end, too, except orphans. `networks`: if it is not empty, the
    networks in which the child's address must be. Raises LoginRefused if the agent may not have bearer tokens; Invalid
    if the caller's token has a limited number of uses or too many tokens above, or for an address outside of
    `networks`.
    """
    act.check_granting()
    if caller.token is not None:
        if caller.token.options.uses:
            raise Invalid("restricted use token cannot generate child tokens", code="restricted_token")
        nearest = () if options.is_orphan else (caller.token.accessor,)
        bounds = tuple(one for one in lists_of(caller) if one != options.policies)
        options = replace(options, above=(*nearest, *caller.token.options.above), bounds=bounds)
        if len(options.above) > MAX_ABOVE:
            raise Invalid(f"the token has {MAX_ABOVE} tokens above it, which is the limit", code="too_deep")
    above = registry.get_holding(act.tx, caller.holding)
    assert above is not None  # the caller was authenticated in this act
    parent: Holding | None = above
    if options.is_orphan:
        parent = None if above.parent is None else registry.get_holding(act.tx, above.parent)
    grant = LoginGrant(
        agent=caller.agent.agent_id,
        name=caller.agent.name,
        task=caller.task.task_id,
        source="token",
        acr=BEARER if caller.token is None else caller.acr,
        scopes=caller.scopes,
        details=caller.details,
        above=parent,
        end=above.expires_at,
    )
    network = network_of_address(address) if caller.token is None else caller.token.network
    if not are_within([network], networks):
        raise Invalid("the role does not permit tokens from this address", code="outside_networks")
    return issue_token(
        act, grant, network=network, client_jkt=above.client_jkt, seconds=seconds, options=options, config=config
    )


def issue_token(
    act: Act,
    grant: LoginGrant,
    *,
    network: str,
    config: Config,
    client_jkt: str | None = None,
    seconds: int = DEFAULT_S,
    options: TokenOptions = NO_OPTIONS,
) -> Login:
    """Issue a token that is valid from the addresses in `network`, and return it. The token lasts `seconds`, or its
    period if `options` has one, but at most until `grant.end` and for its maximum lifetime.

    `client_jkt`: the thumbprint of the key or certificate with whose revocation the token ends; None: that of
    `grant.above`. The agent needs a bearer exemption at this server's API, since a Vault token is not bound to a key.
    Raises LoginRefused if the agent has none.
    """
    resource = registry.get_resource_by_uri(act.tx, config.api)
    if resource is None or not trust.may_have_bearer(act.tx, grant.agent, resource.resource_id, registration=""):
        raise LoginRefused(
            "the agent may not have bearer tokens for this server",
            hint=f"run: ostiary agent allow-bearer {grant.name} --resource ostiary",
            code="not_exempt",
        )
    latest = act.now + min(LONGEST_S, options.explicit_max_s or LONGEST_S) * SECOND
    last = latest if grant.end is None else min(latest, grant.end)
    text = render_token(act.tx.random(32))
    chosen = options.period_s or seconds
    token = VaultToken(
        holding=act.new_id("vt"),
        accessor=act.tx.random(16).hex(),
        network=network,
        seconds=chosen,
        created_at=act.now,
        renewed_at=act.now,
        expires_at=min(act.now + chosen * SECOND, last),
        source=grant.source,
        acr=grant.acr,
        scopes=grant.scopes,
        details=grant.details,
        agent=grant.agent,
        options=options,
        uses_left=options.uses,
    )
    registry.add_holding(
        act,
        Holding(
            id=HoldingId(token.holding),
            kind=TOKEN_KIND,
            agent=grant.agent,
            task=grant.task,
            parent=None if grant.above is None else grant.above.id,
            client_jkt=client_jkt or (None if grant.above is None else grant.above.client_jkt),
            audience=config.api,
            expires_at=last,
        ),
    )
    store.tokens.insert(act.tx, token_digest(act.tx.keys, text), token)
    act.entry.token, act.entry.task = token.holding, grant.task
    registry.fill_entry(
        act, object=token.holding, accessor=token.accessor, method=grant.source, network_bound=token.network
    )
    return Login(text, token, grant.name, grant.task)


def renew_token(act: Act, token: VaultToken, increment_s: int | None) -> VaultToken:
    """Renew a token: the new end is one period from now, or, for a token without a period, `increment_s` seconds from
    now (None: its first lifetime). The token ends at the latest with its parent or login, and at its maximum lifetime.
    The caller of this function must have checked that the token is live. Return the token. Raises Invalid if the token
    is not renewable.
    """
    registry.fill_entry(act, object=token.holding)
    if not token.options.is_renewable:
        raise Invalid("the token is not renewable", code="not_renewable")
    holding = registry.get_holding(act.tx, token.holding)
    assert holding is not None  # the token is live
    end = min(choose_end(token, increment_s, now=act.now), holding.expires_at)
    store.tokens.renew(act.tx, token.accessor, expires_at=end)
    return replace(token, expires_at=end, renewed_at=act.now)


def find_token(act: Act, caller: VaultCaller, unverified: str, *, is_accessor: bool) -> VaultCaller:
    """Find another live token of the caller's agent; return the caller that this token would authenticate.
    `unverified`: the text of the token, or, with `is_accessor`, its accessor. Raises Invalid if no live token has the
    accessor; TokenRefused if the token is not live, or belongs to another agent.
    """
    if is_accessor:
        token = store.tokens.get_by_accessor(act.tx, unverified) if unverified.isascii() else None
    else:
        token = store.tokens.get(act.tx, token_digest(act.tx.keys, unverified)) if unverified.isascii() else None
    holding = None if token is None else registry.get_holding(act.tx, token.holding)
    if is_accessor and (token is None or holding is None or not holding.is_live(act.now)):
        raise Invalid("invalid accessor", hint="no live token has this accessor", code="unknown_accessor")
    if token is None or holding is None or holding.agent != caller.agent.agent_id or not holding.is_live(act.now):
        raise TokenRefused("bad token", hint="the token has ended, or belongs to another agent")
    if has_expired(act, token):
        raise TokenRefused("bad token", hint="the token has ended")
    try:
        return caller_of(act, token, holding)
    except (NotFound, Forbidden):
        raise TokenRefused("bad token", hint="the task of the token has ended") from None


def is_gone(act: Act, unverified: str, *, is_accessor: bool) -> bool:
    """Return whether no live token of any agent has this text, or, with `is_accessor`, this accessor."""
    if not unverified.isascii():
        return True
    if is_accessor:
        token = store.tokens.get_by_accessor(act.tx, unverified)
    else:
        token = store.tokens.get(act.tx, token_digest(act.tx.keys, unverified))
    holding = None if token is None else registry.get_holding(act.tx, token.holding)
    return token is None or holding is None or not holding.is_live(act.now) or has_expired(act, token)


def revoke_token(act: Act, token: VaultToken, *, keeps_children: bool = False) -> None:
    """End a token, and all holdings below it: tokens, leases, certificates with a lease, and wrapped answers.
    `keeps_children`: the tokens directly below it become orphans instead, so these tokens and the holdings below them
    stay valid.
    """
    registry.fill_entry(act, object=token.holding)
    if keeps_children:
        holding = registry.get_holding(act.tx, token.holding)
        assert holding is not None  # the token is live
        registry.release_holdings(act, holding, TOKEN_KIND)
        store.tokens.release(act.tx, token)
    registry.end_holdings(act, Root.HOLDING, token.holding, why="revoked by its holder")


def token_of(caller: VaultCaller) -> VaultToken:
    """Return the Vault token of a caller. Raises TokenRefused if the caller uses an access token."""
    if caller.token is None:
        raise TokenRefused(
            "the request has an access token, which is not a Vault token",
            hint="log in to get a Vault token; an access token is revoked at /revoke",
        )
    return caller.token


async def forget_tokens(world: World) -> None:
    """Delete expired Vault tokens and expired secret IDs, at most `FORGOTTEN_AT_ONCE` of each in one call, and the
    login roles of as many decommissioned agents.
    """
    await world.writer.submit(lambda tx: store.tokens.prune(tx, limit=FORGOTTEN_AT_ONCE))
    await world.writer.submit(lambda tx: store.login_roles.prune(tx, limit=FORGOTTEN_AT_ONCE))
