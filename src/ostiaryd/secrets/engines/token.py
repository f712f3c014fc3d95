"""Tokens at `auth/token` (HashiCorp Vault, "Token auth method (API)").

create, create-orphan, create/ROLE               POST
lookup, renew, revoke, revoke-orphan             POST, of a token of the caller's agent
lookup-accessor, renew-accessor, revoke-accessor POST; accessors   LIST
roles                                            LIST
roles/NAME                                       GET, POST, DELETE

The path in policies of this server is `auth/token/..`. The paths by which a token acts on itself (`lookup-self`) are
handled in `wire_vault`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from ostiary.protocol.errors import Forbidden, Invalid
from ostiaryd.ledger.flows import Act
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import login_roles, tokens
from ostiaryd.secrets.flows.callers import CallerOperation, VaultCaller
from ostiaryd.secrets.flows.policies import (
    DEFAULT,
    UNRESTRICTED,
    check_assignable,
    choose_policies,
    find_capabilities,
)
from ostiaryd.secrets.model.login_role import ROLE_METHODS, TOKEN_MOUNT, check_networks
from ostiaryd.secrets.model.request import (
    SECOND,
    Answer,
    NothingStored,
    SecretAction,
    UnsupportedOperation,
    VaultMethod,
    VaultRequest,
    is_set,
    matches_glob,
    parse_duration,
    parse_texts,
    render_time,
)
from ostiaryd.secrets.model.token import DEFAULT_S, TokenOptions, VaultToken

MAX_METADATA = 32
MAX_TEXT = 128
MAX_LISTED = 10_000
_ROLE_DEFAULTS: dict[str, Any] = {
    "allowed_policies": [],
    "allowed_policies_glob": [],
    "disallowed_policies": [],
    "disallowed_policies_glob": [],
    "orphan": False,
    "renewable": True,
    "token_bound_cidrs": [],
    "token_explicit_max_ttl": 0,
    "token_no_default_policy": False,
    "token_num_uses": 0,
    "token_period": 0,
    "token_type": "default-service",
}


_UNSUPPORTED = frozenset({"allowed_entity_aliases", "path_suffix"})
"""Members of a role for child tokens that are refused, because this server does not support them."""


class _NewToken(Struct):
    id: str = ""
    policies: list[str] | str | None = None
    meta: dict[str, str] | None = None
    no_parent: bool = False
    no_default_policy: bool = False
    renewable: bool = True
    ttl: int | str = ""
    lease: int | str = ""
    type: str = "service"
    explicit_max_ttl: int | str = ""
    display_name: str = ""
    num_uses: int = 0
    period: int | str = ""
    entity_alias: str = ""


class _Named(Struct):
    token: str = ""
    accessor: str = ""
    increment: int | str | None = None


class _Role(Struct):
    allowed_policies: str | list[str] | UnsetType = UNSET
    allowed_policies_glob: str | list[str] | UnsetType = UNSET
    disallowed_policies: str | list[str] | UnsetType = UNSET
    disallowed_policies_glob: str | list[str] | UnsetType = UNSET
    orphan: bool | UnsetType = UNSET
    renewable: bool | UnsetType = UNSET
    token_explicit_max_ttl: int | str | UnsetType = UNSET
    token_bound_cidrs: str | list[str] | UnsetType = UNSET
    token_no_default_policy: bool | UnsetType = UNSET
    token_num_uses: int | UnsetType = UNSET
    token_period: int | str | UnsetType = UNSET
    token_type: str | UnsetType = UNSET
    period: int | str | UnsetType = UNSET
    explicit_max_ttl: int | str | UnsetType = UNSET
    bound_cidrs: str | list[str] | UnsetType = UNSET


IssueChild = Callable[[Act, VaultCaller, TokenOptions, int, list[str]], Answer]
"""The function that issues a child token, from its options, its seconds, and the networks of its role (an empty list
for all).
"""


def find_operation(rest: str, request: VaultRequest, make: IssueChild) -> CallerOperation:
    """Return the operation of a request below `auth/token/`. `make` is the function that issues a child token. Raises
    NothingStored for an unknown path, UnsupportedOperation for a method that the path does not support; Malformed for
    members of wrong types, Invalid for unsupported members of a role.
    """
    path = f"token/{rest}"
    kind, _, name = rest.partition("/")
    if kind == "roles":
        return _find_role_operation(path, name, request)
    if kind == "accessors" and not name and request.method is VaultMethod.LIST:
        return CallerOperation(SecretAction.LIST, path, "list", _list_accessors)
    if request.method is not VaultMethod.WRITE:
        raise UnsupportedOperation("unsupported operation")
    if (kind == "create" and name.count("/") == 0) or rest == "create-orphan":
        body = request.read_body(_NewToken)
        is_orphan = rest == "create-orphan" or body.no_parent
        run = partial(_create, body, name, is_orphan, make, f"auth/{path}")
        policy_path = "token/create-orphan" if is_orphan else path
        return CallerOperation(SecretAction.WRITE, policy_path, "create", run)
    if rest == "tidy":
        return CallerOperation(SecretAction.WRITE, path, "tidy", _tidy)
    if rest in _ON_TOKEN:
        verb, is_accessor = _ON_TOKEN[rest]
        run = partial(_use_token, request.read_body(_Named), verb, is_accessor)
        action = {"lookup": SecretAction.READ, "renew": SecretAction.WRITE}.get(verb, SecretAction.DELETE)
        return CallerOperation(action, path, verb, run)
    raise NothingStored("no handler for route", code="no_route")


_ON_TOKEN = {
    "lookup": ("lookup", False),
    "renew": ("renew", False),
    "revoke": ("revoke", False),
    "revoke-orphan": ("revoke-orphan", False),
    "lookup-accessor": ("lookup", True),
    "renew-accessor": ("renew", True),
    "revoke-accessor": ("revoke", True),
}


def _create(
    body: _NewToken, role_name: str, is_orphan: bool, make: IssueChild, path: str, act: Act, caller: VaultCaller
) -> Answer:
    if body.no_parent and "sudo" not in find_capabilities(act, caller, path):
        raise Forbidden(
            "root or sudo privileges required to create orphan token",
            hint="leave `no_parent` out, or write the token's policies with the capability `sudo` on this path",
            code="vault_policy",
        )
    if body.type == "batch":
        raise Invalid(
            "tokens of the type batch are not supported, because they cannot be revoked",
            hint="create a token of the type service, and limit its `ttl` and `num_uses`",
        )
    if body.type not in ("", "default", "service"):
        raise Invalid(f"the token type {body.type[:32]!a} is unknown", hint="leave `type` out, or set it to service")
    if body.id or body.entity_alias:
        raise Invalid("`id` and `entity_alias` are not supported", hint="leave out both members")
    if len(body.meta or {}) > MAX_METADATA or len(body.display_name) > MAX_TEXT:
        raise Invalid(
            f"`meta` may have at most {MAX_METADATA} members, and `display_name` at most {MAX_TEXT} characters"
        )
    if not 0 <= body.num_uses <= 1_000_000_000:
        raise Invalid("`num_uses` must be 0 to 1000000000 uses (0: no limit)")
    names = parse_texts(body.policies or [], field="policies")
    options = TokenOptions(
        policies=choose_policies(caller, names, has_default=not body.no_default_policy),
        metadata=body.meta or {},
        display_name=f"token-{body.display_name}" if body.display_name else "token",
        path=f"auth/token/create{'-orphan' if is_orphan else ''}",
        period_s=_seconds(body.period, "period"),
        explicit_max_s=_seconds(body.explicit_max_ttl, "explicit_max_ttl"),
        uses=body.num_uses,
        is_renewable=body.renewable,
        is_orphan=is_orphan,
    )
    networks: list[str] = []
    if role_name:
        options, networks = _under_role(act, caller, role_name, names, options, has_default=not body.no_default_policy)
    check_assignable(caller, options.policies)
    return make(act, caller, options, _seconds(body.ttl or body.lease, "ttl") or DEFAULT_S, networks)


def _under_role(
    act: Act, caller: VaultCaller, name: str, names: list[str], options: TokenOptions, *, has_default: bool
) -> tuple[TokenOptions, list[str]]:
    """Return the options of a new token: `options`, limited by the role `name`; and the networks of the role. `names`:
    the policies that the request states. Raises Invalid if the role does not permit the options.
    """
    if not login_roles.has_role(TOKEN_MOUNT, name, act, caller):
        raise Invalid(
            f"unknown role {name[:128]}", hint="list the roles with LIST auth/token/roles", code="role_not_found"
        )
    role = login_roles.find_role(act, caller, TOKEN_MOUNT, name)
    settings = {**_ROLE_DEFAULTS, **role.settings}
    allowed = [one.lower() for one in settings["allowed_policies"]]
    has_default = has_default and not settings["token_no_default_policy"]
    policies = choose_policies(caller, names or allowed, has_default=has_default)
    globs = [one.lower() for one in settings["allowed_policies_glob"]]
    refused = [one.lower() for one in (*settings["disallowed_policies"], *settings["disallowed_policies_glob"])]
    if policies is not None and DEFAULT not in {one.lower() for one in names}:
        policies = tuple(one for one in policies if one != DEFAULT or not _matches(DEFAULT, refused))
    for one in (UNRESTRICTED,) if policies is None else policies:
        is_allowed = not (allowed or globs) or one in (*allowed, DEFAULT) or _matches(one, globs)
        if not is_allowed or _matches(one, refused):
            raise Invalid("token policies are not all allowed by the role")
    limits = [one for one in (options.explicit_max_s, settings["token_explicit_max_ttl"]) if one]
    limited = TokenOptions(
        policies=policies,
        metadata=options.metadata,
        display_name=options.display_name,
        path=f"auth/token/create/{name}",
        role=name,
        period_s=settings["token_period"] or options.period_s,
        explicit_max_s=min(limits, default=0),
        uses=min(filter(None, (options.uses, settings["token_num_uses"])), default=0),
        is_renewable=options.is_renewable and settings["renewable"],
        is_orphan=options.is_orphan or settings["orphan"],
    )
    return limited, settings["token_bound_cidrs"]


def _matches(policy: str, patterns: list[str]) -> bool:
    return any(matches_glob(pattern, policy) for pattern in patterns)


def _seconds(value: int | str, field: str) -> int:
    return parse_duration(value, field=field) // SECOND if value not in ("", 0) else 0


def _use_token(body: _Named, verb: str, is_accessor: bool, act: Act, caller: VaultCaller) -> Answer:
    unverified = body.accessor if is_accessor else body.token
    if verb == "revoke" and unverified and tokens.is_gone(act, unverified, is_accessor=is_accessor):
        return Answer(status=204)
    if verb == "lookup" and not unverified and not is_accessor:
        other = caller  # a request that states no token looks up its own
    else:
        other = tokens.find_token(act, caller, unverified, is_accessor=is_accessor)
    token = tokens.token_of(other)
    match verb:
        case "lookup":
            return Answer(data=render_token(token, text="" if is_accessor else unverified, caller=other, now=act.now))
        case "renew":
            seconds = parse_duration(body.increment or 0, field="increment") // SECOND or None
            renewed = tokens.renew_token(act, token, seconds)
            return Answer(auth=render_auth(renewed, text="" if is_accessor else unverified, caller=other))
    tokens.revoke_token(act, token, keeps_children=verb == "revoke-orphan")
    return Answer(status=204)


def _list_accessors(act: Act, caller: VaultCaller) -> Answer:
    listed = store.tokens.accessors(act.tx, caller.agent.agent_id, now=act.now, limit=MAX_LISTED)
    if not listed:
        raise NothingStored("the agent has no token")
    return Answer(data={"keys": listed})


def names_of(token: VaultToken | None) -> list[str]:
    """Return the names of the Vault policies of a token; the only name `ostiary` if no Vault policy limits the token,
    or if `token` is None.
    """
    policies = None if token is None else token.options.policies
    return [UNRESTRICTED] if policies is None else list(policies)


def _tidy(act: Act, caller: VaultCaller) -> Answer:
    """Accept a request to delete expired tokens. The server deletes them at regular times without a request."""
    return Answer(status=202)


def render_token(token: VaultToken, *, text: str, caller: VaultCaller, now: int) -> dict[str, object]:
    """Return the JSON of a token as the operation `lookup` returns it. `text` is the text of the token; empty for a
    lookup by the accessor, which must not show the text.
    """
    options = token.options
    data: dict[str, object] = {
        "accessor": token.accessor,
        "bound_cidrs": [token.network],
        "creation_time": token.created_at // SECOND,
        "creation_ttl": token.seconds,
        "display_name": options.display_name or caller.agent.name,
        "entity_id": "",
        "expire_time": render_time(token.expires_at),
        "explicit_max_ttl": options.explicit_max_s,
        "id": text,
        "issue_time": render_time(token.created_at),
        "meta": _metadata(token, caller.agent.name, caller.task.task_id),
        "num_uses": max(token.uses_left, 0),
        "orphan": options.is_orphan,
        "path": options.path or f"auth/{token.source}/login",
        "policies": names_of(token),
        "renewable": options.is_renewable,
        "ttl": (token.expires_at - now) // SECOND,
        "type": "service",
    }
    if token.renewed_at > token.created_at:
        data["last_renewal"] = render_time(token.renewed_at)
        data["last_renewal_time"] = token.renewed_at // SECOND
    if options.period_s:
        data["period"] = options.period_s
    if options.role:
        data["role"] = options.role
    return data


def _metadata(token: VaultToken, agent: str, task: str) -> dict[str, str]:
    """Return the metadata of a token. The member `role` is the role of the token's login at a method of `ROLE_METHODS`;
    for other logins, the name of the agent.
    """
    chosen = token.options.metadata
    return {**chosen, "role": chosen.get("role", agent) if token.source in ROLE_METHODS else agent, "task": task}


def render_auth(token: VaultToken, *, text: str, caller: VaultCaller) -> dict[str, object]:
    """Return the JSON of a token of the caller as the member `auth` of a response. `text` is the text of the token."""
    return auth_of(token, text=text, agent=caller.agent.name, task=caller.task.task_id)


def auth_of(token: VaultToken, *, text: str, agent: str, task: str) -> dict[str, object]:
    """Return the JSON of a token as the member `auth` of a response. `agent` and `task`, the name of its agent and the
    id of its task, are shown as metadata.
    """
    options = token.options
    return {
        "client_token": text,
        "accessor": token.accessor,
        "policies": names_of(token),
        "token_policies": names_of(token),
        "metadata": _metadata(token, agent, task),
        "lease_duration": (token.expires_at - token.renewed_at) // SECOND,
        "renewable": options.is_renewable,
        "entity_id": "",
        "token_type": "service",
        "orphan": options.is_orphan,
        "mfa_requirement": None,
        "num_uses": options.uses,
    }


# --- roles


def _find_role_operation(path: str, name: str, request: VaultRequest) -> CallerOperation:
    match request.method, bool(name):
        case VaultMethod.LIST, False:
            return CallerOperation(SecretAction.LIST, path, "list", _list_roles)
        case VaultMethod.READ, True:
            return CallerOperation(SecretAction.READ, path, "read", partial(_read_role, name))
        case VaultMethod.WRITE, True:
            if unsupported := sorted(one for one in _UNSUPPORTED if is_set(request.body.get(one))):
                raise Invalid(f"`{unsupported[0]}` of a role is not supported", hint="leave the member out")
            run = partial(_put_role, name, request.read_body(_Role))
            return CallerOperation(
                SecretAction.WRITE, path, "write", run, partial(login_roles.has_role, TOKEN_MOUNT, name)
            )
        case VaultMethod.DELETE, True:
            return CallerOperation(SecretAction.DELETE, path, "delete", partial(_delete_role, name))
    raise UnsupportedOperation("unsupported operation")


def _list_roles(act: Act, caller: VaultCaller) -> Answer:
    return Answer(data={"keys": login_roles.list_roles(act, caller, TOKEN_MOUNT)})


def _read_role(name: str, act: Act, caller: VaultCaller) -> Answer:
    role = login_roles.find_role(act, caller, TOKEN_MOUNT, name)
    shown = {"name": name, **login_roles.render_settings(role, _ROLE_DEFAULTS)}
    shown.pop("policies", None)
    return Answer(data=shown)


def _put_role(name: str, body: _Role, act: Act, caller: VaultCaller) -> Answer:
    login_roles.put_role(act, caller, TOKEN_MOUNT, name, partial(_change_role, caller, body))
    return Answer(status=204)


_OLD_MEMBERS = {
    "bound_cidrs": "token_bound_cidrs",
    "explicit_max_ttl": "token_explicit_max_ttl",
    "period": "token_period",
}
"""Older names of members of a role."""
_LISTS = (
    "allowed_policies",
    "allowed_policies_glob",
    "disallowed_policies",
    "disallowed_policies_glob",
    "token_bound_cidrs",
)


def _change_role(caller: VaultCaller, body: _Role, present: Mapping[str, object]) -> dict[str, object]:
    changes = {one: value for one in body.__struct_fields__ if (value := getattr(body, one)) is not UNSET}
    for old, new in _OLD_MEMBERS.items():
        if old in changes:
            changes.setdefault(new, changes.pop(old))
    for one in ("token_period", "token_explicit_max_ttl"):
        if one in changes:
            changes[one] = _seconds(changes[one], one)
    for one in _LISTS:
        if one in changes:
            changes[one] = parse_texts(changes[one], field=one)
    check_networks(changes.get("token_bound_cidrs", []), field="token_bound_cidrs")
    if changes.get("token_type", "service") not in ("service", "default", "default-service"):
        raise Invalid(
            "only tokens of the type service are supported", hint="leave out `token_type`, or set it to service"
        )
    if not 0 <= changes.get("token_num_uses", 0) <= 1_000_000_000:
        raise Invalid("`token_num_uses` must be 0 to 1000000000 uses (0: no limit)")
    return {**present, **changes, "policies": ()}


def _delete_role(name: str, act: Act, caller: VaultCaller) -> Answer:
    login_roles.delete_role(act, caller, TOKEN_MOUNT, name)
    return Answer(status=204)
