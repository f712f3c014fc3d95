"""Vault tokens: login, renewal, revocation. A token is a holding of its agent, and ends with its task and with
the credential of its login.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from ostiary.authorization.assurance import BEARER, SECRET
from ostiary.authorization.bounds import ToolDetail, parse_details
from ostiary.authorization.claims import scopes
from ostiary.protocol.client_certificate import ClientCertificate
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Forbidden, Invalid, NotFound, Refused
from ostiary.protocol.jose import InvalidToken
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId, Holding, HoldingId, Root
from ostiaryd.secrets.flows import login_roles
from ostiaryd.secrets.flows.callers import (
    LoginRefused,
    TokenRefused,
    VaultCaller,
    caller_of,
    find_live,
    has_expired,
    token_digest,
    verify_claims,
)
from ostiaryd.secrets.flows.mounts import check_enabled
from ostiaryd.secrets.flows.policies import lists_of
from ostiaryd.secrets.flows.seal import check_open
from ostiaryd.secrets.model.certificate_login import CertificateRole, admits, describe
from ostiaryd.secrets.model.jwt_login import JwtConfig, JwtRole, check_claims
from ostiaryd.secrets.model.login_role import CONFIG, MAX_ROLES, LoginRole, SecretId, is_in_networks
from ostiaryd.secrets.model.mount import Mount
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.model.token import (
    DEFAULT_S,
    KIND,
    LONGEST_S,
    MAX_ABOVE,
    NO_OPTIONS,
    TokenOptions,
    VaultToken,
    choose_end,
    network_of_address,
    render_token,
)
from ostiaryd.secrets.store import login_roles as role_store
from ostiaryd.secrets.store import tokens as store
from ostiaryd.tasks.model import standing_id
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model import Credentials
from ostiaryd.trust.model.certificates import InvalidCertificate, expiry_of

FORGOTTEN_AT_ONCE = 1000


class LoginGrant(NamedTuple):
    """The authority of a new token, which comes from a login or from the parent token: its agent, task, scopes and
    bounds.

    `source`: the login method. The token ends with the holding `above`, and at the latest at `end` (microseconds).
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


def login_by_token(act: Act, request: trust.Request, *, role: str, address: str, config: Config) -> Login:
    """Log an agent in with an access token for this server's API: a bearer token, or a bound token with its DPoP proof;
    return the Vault token.

    The Vault token has the task, scopes and bounds of the access token, and ends with it. Raises LoginRefused.
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
        raise LoginRefused("the role could not be found", hint="send the name of the agent as `role`")
    access = registry.get_holding(act.tx, claims.jti)
    if access is None:
        raise LoginRefused("error validating token: the token has ended")
    grant = LoginGrant(
        agent=agent.agent_id,
        name=agent.name,
        task=claims.task or standing_id(agent.agent_id),
        source="jwt",
        acr=BEARER,  # the Vault token itself needs no proof of a key
        scopes=scopes(claims),
        details=parse_details(claims.authorization_details),
        above=access,
        end=access.expires_at,
    )
    return issue_token(act, grant, network=network_of_address(address), config=config)


def login_by_secret(act: Act, role_id: str, secret_id: str, *, address: str, config: Config) -> Login:
    """Log an agent in with its client id (`role_id`) and a client secret; return the Vault token. Raises
    LoginRefused.
    """
    check_open(act.tx)
    act.check_granting()
    try:
        client = trust.check_secret(
            act, Credentials(unverified_assertion=None, client_id=role_id, unverified_secret=secret_id)
        )
    except Refused as refusal:
        raise LoginRefused(f"invalid role or secret ID: {refusal.message}", hint=refusal.hint) from None
    assert client.agent is not None  # only agents have client secrets
    grant = LoginGrant(
        agent=client.agent.agent_id,
        name=client.agent.name,
        task=standing_id(client.agent.agent_id),
        source="approle",
        acr=SECRET,
        scopes=client.scopes,
        details=(),
        above=None,
        end=client.ends,
    )
    return issue_token(act, grant, network=network_of_address(address), config=config)


def login_by_secret_id(
    act: Act, method: Mount, role_id: str, unverified_secret_id: str, *, address: str, config: Config
) -> Login:
    """Log in by a secret ID of a role at an enabled AppRole method; return the Vault token. The token acts as the agent
    that generated the secret ID.

    Raises LoginRefused; NothingStored if the method was disabled meanwhile.
    """
    check_open(act.tx)
    act.check_granting()
    mount = method.path
    check_enabled(act.tx, method)
    role, secret_id, holding = login_roles.use_secret_id(act, mount, role_id, unverified_secret_id, address=address)
    return _log_in_by_role(
        act,
        method,
        role,
        secret_id,
        holding,
        acr=SECRET,
        metadata={**secret_id.metadata, "role_name": role.name},
        display_name=mount.removeprefix("auth/"),
        address=address,
        config=config,
    )


def find_login_role(reader: Reader, mount: str, name: str) -> LoginRole:
    """Return a role of a login method. An empty `name` is the default role of a JWT method. Raises LoginRefused."""
    if not name and (only := role_store.only_config(reader, mount)) is not None:
        name = convert(only.settings, JwtConfig).default_role
    if not name:
        raise LoginRefused("missing role")
    if (role := role_store.get_by_id(reader, mount, name)) is None:
        raise LoginRefused(f"role {name[:128]!a} could not be found")
    return role


def find_login_config(reader: Reader, role: LoginRole) -> dict[str, object]:
    """Return the configuration that the agent of a role has set for the role's login method. Raises LoginRefused if
    there is none.
    """
    if (stored := role_store.get(reader, role.mount, role.agent, CONFIG)) is None:
        raise LoginRefused("could not load configuration: the method is not configured")
    return stored.settings


def list_login_roles(reader: Reader, mount: str) -> list[LoginRole]:
    """Return the roles of all agents at a login method, for a login that states no role. Raises LoginRefused if there
    are more than `MAX_ROLES`.
    """
    roles = role_store.roles_of_mount(reader, mount, limit=MAX_ROLES + 1)
    if len(roles) > MAX_ROLES:
        raise LoginRefused(f"the method has more than {MAX_ROLES} roles", hint="state the `name` of a role")
    return roles


class RoleLogin(NamedTuple):
    """A login that a role admits: its user, and the metadata of its token. `end`: the time (microseconds) at which the
    token ends at the latest; None: no limit except the end of the role's authority. `certificate`: the thumbprint
    (`x5t#S256`) of the client certificate of the login, with whose revocation the token ends; None without one.
    """

    user: str
    metadata: dict[str, str]
    end: int | None = None
    certificate: str | None = None


def login_by_role(
    act: Act,
    method: Mount,
    name: str,
    used: Mapping[str, object] | None,
    admit: Callable[[LoginRole], RoleLogin],
    *,
    address: str,
    config: Config,
) -> Login:
    """Log in at the role `name` of a login method; return the Vault token. The token acts as the agent that wrote the
    role.

    `used`: the configuration with which the credentials were verified; None for a method without a configuration.
    `admit`: returns the login if the role admits the credentials, and raises otherwise. Raises LoginRefused, the errors
    of `admit`; NothingStored if the method was disabled meanwhile.
    """
    check_open(act.tx)
    act.check_granting()
    check_enabled(act.tx, method)
    role = find_login_role(act.tx, method.path, name)
    if used is not None and find_login_config(act.tx, role) != used:
        raise LoginRefused("the configuration of the method has changed", hint="try again")
    authority, holding = login_roles.find_authority(act, role)
    admitted = admit(role)
    login = _log_in_by_role(
        act,
        method,
        role,
        authority,
        holding,
        acr=BEARER,
        metadata={**admitted.metadata, "role": role.name},
        display_name=f"{method.path.removeprefix('auth/')}-{admitted.user}",
        end=admitted.end,
        certificate=admitted.certificate,
        address=address,
        config=config,
    )
    detail = {"role": f"{method.path}/{role.name}", "user": admitted.user[:200]}
    act.entry.detail = {**(act.entry.detail or {}), **detail}
    return login


def admit_claims(role: LoginRole, claims: Mapping[str, object], *, issuer: str, now: int) -> RoleLogin:
    """Return the login by verified claims, if a role of a JWT method admits the claims. Raises LoginRefused."""
    try:
        return RoleLogin(*check_claims(convert(role.settings, JwtRole), claims, issuer=issuer, now=now))
    except InvalidToken as refusal:
        raise LoginRefused(f"error validating token: {refusal.message}") from None


def admit_certificate(act: Act, role: LoginRole, shown: ClientCertificate) -> RoleLogin:
    """Return the login by a client certificate, if a role of a cert method admits the certificate. Raises
    LoginRefused.
    """
    settings = convert(role.settings, CertificateRole)
    try:
        certificate = trust.check_shown(act, shown, settings.anchors)
    except InvalidCertificate as refusal:
        raise LoginRefused(f"invalid certificate: {refusal.message}") from None
    if not admits(settings, certificate):
        raise LoginRefused("invalid certificate: the role does not admit its names")
    metadata = {"cert_name": role.name, **describe(certificate)}
    return RoleLogin(settings.display_name or role.name, metadata, expiry_of(certificate), shown.thumbprint)


def _log_in_by_role(
    act: Act,
    method: Mount,
    role: LoginRole,
    secret_id: SecretId,
    holding: Holding,
    *,
    acr: str,
    metadata: dict[str, str],
    display_name: str,
    address: str,
    config: Config,
    end: int | None = None,
    certificate: str | None = None,
) -> Login:
    """Issue a token with the authority in `secret_id`: a secret ID of AppRole, or the authority of a role. Return the
    token. Raises LoginRefused.
    """
    agent, task = find_live(act, holding.agent, holding.task)
    act.entry.agent, act.entry.owner, act.entry.task = agent.agent_id, agent.owner, task.task_id
    settings = login_roles.read_settings(role)
    if not all(is_in_networks(address, one) for one in (settings.token_bound_cidrs, settings.secret_id_bound_cidrs)):
        raise LoginRefused("the role is bound to other addresses")
    limits = (settings.token_explicit_max_ttl, settings.token_max_ttl, method.max_ttl)
    options = TokenOptions(
        policies=settings.policies,
        bounds=secret_id.bounds,
        metadata=metadata,
        display_name=display_name,
        path=f"{role.mount}/login",
        period_s=settings.token_period,
        explicit_max_s=min(filter(None, limits), default=0),
        uses=settings.token_num_uses,
    )
    grant = LoginGrant(
        agent=agent.agent_id,
        name=agent.name,
        task=task.task_id,
        source=method.type,
        acr=acr,
        scopes=secret_id.scopes,
        details=secret_id.details,
        above=holding,
        end=holding.expires_at if end is None else min(end, holding.expires_at),
    )
    seconds = settings.token_ttl or method.default_ttl or DEFAULT_S
    network = network_of_address(address)
    return issue_token(
        act, grant, network=network, client_jkt=certificate, seconds=seconds, options=options, config=config
    )


def create_child(
    act: Act, caller: VaultCaller, options: TokenOptions, *, seconds: int, address: str, config: Config
) -> Login:
    """Create a child token of the caller's token, and return it. The child has the same agent, task, scopes and bounds,
    and ends at the latest when the caller's token expires.

    If the caller's token is revoked, its child tokens end, too, except orphans. Raises LoginRefused; Invalid if the
    caller's token has a limited number of uses or too many tokens above.
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
    """Issue a token that is valid from the addresses in `network`, and return it.

    The agent needs a bearer exemption at this server's API, since a Vault token is not bound to a key. Raises
    LoginRefused.
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
            kind=KIND,
            agent=grant.agent,
            task=grant.task,
            parent=None if grant.above is None else grant.above.id,
            client_jkt=client_jkt or (None if grant.above is None else grant.above.client_jkt),
            audience=config.api,
            expires_at=last,
        ),
    )
    store.insert(act.tx, token_digest(act.tx.keys, text), token)
    act.entry.token, act.entry.task = token.holding, grant.task
    registry.note(act, object=token.holding, accessor=token.accessor, method=grant.source, network_bound=token.network)
    return Login(text, token, grant.name, grant.task)


def renew_token(act: Act, token: VaultToken, increment_s: int | None) -> VaultToken:
    """Extend a token by its period, by `increment_s` seconds or (None) by its first lifetime, but at most to the end of
    its holding; return the token. Raises Invalid if the token is not renewable.
    """
    registry.note(act, object=token.holding)
    if not token.options.is_renewable:
        raise Invalid("the token is not renewable", code="not_renewable")
    holding = registry.get_holding(act.tx, token.holding)
    assert holding is not None  # the token is live
    end = min(choose_end(token, increment_s, now=act.now), holding.expires_at)
    store.renew(act.tx, token.accessor, expires_at=end)
    return replace(token, expires_at=end, renewed_at=act.now)


def find_token(act: Act, caller: VaultCaller, unverified: str, *, is_accessor: bool) -> VaultCaller:
    """Return the caller that another live token of the caller's agent authenticates. `unverified`: the text of that
    token, or, with `is_accessor`, its accessor. Raises TokenRefused, Invalid.
    """
    if is_accessor:
        token = store.get_by_accessor(act.tx, unverified) if unverified.isascii() else None
    else:
        token = store.get(act.tx, token_digest(act.tx.keys, unverified)) if unverified.isascii() else None
    holding = None if token is None else registry.get_holding(act.tx, token.holding)
    if is_accessor and (token is None or holding is None or not holding.is_live(act.now)):
        raise Invalid("invalid accessor", hint="the token has ended", code="unknown_accessor")
    if token is None or holding is None or holding.agent != caller.agent.agent_id or not holding.is_live(act.now):
        raise TokenRefused("bad token", hint="the token has ended, or belongs to another agent")
    if has_expired(act, token):
        raise TokenRefused("bad token", hint="the token has ended")
    try:
        return caller_of(act, token, holding)
    except (NotFound, Forbidden):
        raise TokenRefused("bad token", hint="the task of the token has ended") from None


def revoke_token(act: Act, token: VaultToken) -> None:
    """End a token, and all tokens and leases below the token."""
    registry.note(act, object=token.holding)
    registry.end_holdings(act, Root.HOLDING, token.holding, why="revoked by its holder")


def token_of(caller: VaultCaller) -> VaultToken:
    """Return the Vault token of a caller. Raises TokenRefused if the caller uses an access token."""
    if caller.token is None:
        raise TokenRefused(
            "the request has an access token, which is not a Vault token", hint="revoke an access token at /revoke"
        )
    return caller.token


async def forget_tokens(world: World) -> None:
    """Delete the records of tokens and secret IDs that have expired."""
    await world.writer.submit(lambda tx: store.prune(tx, limit=FORGOTTEN_AT_ONCE))
    await world.writer.submit(lambda tx: role_store.prune(tx, limit=FORGOTTEN_AT_ONCE))
