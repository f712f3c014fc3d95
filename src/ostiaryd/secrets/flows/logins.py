"""Logins at the Vault API: by access token, by client secret, by secret ID, and by a role of a login method. Each login
returns a new Vault token, and raises Sealed while the secrets are sealed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ostiary.authorization.assurance import BEARER, SECRET
from ostiary.authorization.bounds import parse_details
from ostiary.authorization.claims import scopes
from ostiary.protocol.client_certificate import ClientCertificate
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Refused
from ostiary.protocol.jose import InvalidToken
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Holding
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import login_roles
from ostiaryd.secrets.flows.callers import (
    LoginRefused,
    find_live,
    verify_claims,
)
from ostiaryd.secrets.flows.mounts import check_enabled
from ostiaryd.secrets.flows.seal import check_open
from ostiaryd.secrets.flows.tokens import Login, LoginGrant, issue_token
from ostiaryd.secrets.model.certificate_login import CertificateRole, admits, describe
from ostiaryd.secrets.model.jwt_login import JwtConfig, JwtRole, check_claims
from ostiaryd.secrets.model.login_role import CONFIG, MAX_ROLES, LoginRole, SecretId, is_in_networks
from ostiaryd.secrets.model.mount import Mount
from ostiaryd.secrets.model.token import (
    DEFAULT_S,
    TokenOptions,
    network_of_address,
)
from ostiaryd.tasks.model import standing_id
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model import Credentials
from ostiaryd.trust.model.certificates import InvalidCertificate, expiry_of


def login_by_token(act: Act, request: trust.Request, *, role: str, address: str, config: Config) -> Login:
    """Log an agent in with an access token for this server's API: a bearer token, or a bound token with its DPoP proof;
    return the Vault token.

    The Vault token has the task, scopes and bounds of the access token, and ends with it. `role`: the name of the
    agent, or empty. Raises LoginRefused if the token is not valid, `role` names another agent or the agent may not log
    in; NonceNeeded if the DPoP proof has no recent nonce.
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
    """Log an agent in with its client id (`role_id`) and a client secret (`secret_id`); return the Vault token. Raises
    LoginRefused if the id or the secret is wrong, or the agent may not log in.
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
    """Log in with the role ID and a secret ID of a role at an AppRole method that an agent enabled; return the Vault
    token. The token acts as the agent that generated the secret ID.

    Raises LoginRefused for wrong credentials; NothingStored if the method was disabled meanwhile.
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
    """Return the role `name` of a login method. An empty `name` stands for the default role in the JWT configuration of
    the method, if exactly one agent has configured the method. Raises LoginRefused for an unknown role, or an empty
    `name` without such a default.
    """
    if not name and (only := store.login_roles.only_config(reader, mount)) is not None:
        name = convert(only.settings, JwtConfig).default_role
    if not name:
        raise LoginRefused("missing role")
    if (role := store.login_roles.get_by_id(reader, mount, name)) is None:
        raise LoginRefused(f"role {name[:128]!a} could not be found")
    return role


def find_login_config(reader: Reader, role: LoginRole) -> dict[str, object]:
    """Return the configuration that the agent of a role has set for the role's login method. Raises LoginRefused if
    there is none.
    """
    if (stored := store.login_roles.get(reader, role.mount, role.agent, CONFIG)) is None:
        raise LoginRefused(
            "could not load configuration: the method is not configured", hint="the agent of the role writes `config`"
        )
    return stored.settings


def list_login_roles(reader: Reader, mount: str) -> list[LoginRole]:
    """Return the roles of all agents at a login method, for a login that states no role. Raises LoginRefused if there
    are more than `MAX_ROLES`.
    """
    roles = store.login_roles.roles_of_mount(reader, mount, limit=MAX_ROLES + 1)
    if len(roles) > MAX_ROLES:
        raise LoginRefused(f"the method has more than {MAX_ROLES} roles", hint="state the `name` of a role")
    return roles


class RoleLogin(NamedTuple):
    """A login that a role admits: its user, and the metadata of its token. `end`: the time (microseconds) at which the
    token ends at the latest; None: no limit except the end of the role's authority (the access that the role's writer
    gave it). `certificate`: the thumbprint (`x5t#S256`) of the client certificate of the login, with whose revocation
    the token ends; None without one.
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

    `used`: the configuration with which the caller of this function verified the credentials; None for a method without
    a configuration. `admit`: returns the login if the role admits the credentials, and raises LoginRefused otherwise.
    Raises LoginRefused also if the role is unknown, its authority has ended or the configuration has changed;
    NothingStored if the method was disabled meanwhile.
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
    """Return the login by the claims of a JWT whose signature the caller of this function has verified. `issuer`: the
    required `iss`; empty: any. Raises LoginRefused if the role does not admit the claims.
    """
    try:
        return RoleLogin(*check_claims(convert(role.settings, JwtRole), claims, issuer=issuer, now=now))
    except InvalidToken as refusal:
        raise LoginRefused(f"error validating token: {refusal.message}") from None


def admit_certificate(act: Act, role: LoginRole, shown: ClientCertificate) -> RoleLogin:
    """Return the login by a client certificate, if a role of a cert method admits the certificate. Raises LoginRefused
    if the role does not admit the certificate, or the certificate is not valid.
    """
    settings = convert(role.settings, CertificateRole)
    try:
        certificate = trust.check_shown(act, shown, settings.anchors)
    except InvalidCertificate as refusal:
        raise LoginRefused(f"invalid certificate: {refusal.message}") from None
    if not admits(settings, certificate):
        raise LoginRefused("invalid certificate: the role does not admit the names in the certificate")
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
    token. Raises LoginRefused if the role is bound to other addresses, or the agent may not log in.
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
