"""Roles of login methods and of child tokens, and the secret IDs of AppRole.

A role belongs to the agent that created the role; no other agent sees or uses it. A login by a secret ID acts as the
agent that generated the secret ID, under the task in which it was generated, and never has more access than the token
that generated the secret ID. A login at a method of `ROLE_METHODS` never has more access than the token that wrote the
role.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Invalid
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Holding, HoldingId, Root
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.callers import LoginRefused, VaultCaller, token_digest
from ostiaryd.secrets.flows.policies import check_assignable, choose_policies, lists_of
from ostiaryd.secrets.model.login_role import (
    CONFIG,
    KIND,
    LONGEST_AUTHORITY_S,
    LONGEST_SECRET_ID_S,
    MAX_ROLES,
    MAX_SECRET_IDS,
    MAX_SETTINGS,
    LoginRole,
    SecretId,
    are_within,
    check_networks,
    check_role_name,
    is_in_networks,
)
from ostiaryd.secrets.model.request import SECOND, NothingStored, parse_duration, parse_texts

MAX_ID_TEXT = 256


class RoleSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a role that determine the tokens of its logins. Times in seconds; 0: not set."""

    policies: tuple[str, ...] | None = None
    token_bound_cidrs: list[str] = []
    token_explicit_max_ttl: int = 0
    token_max_ttl: int = 0
    token_num_uses: int = 0
    token_period: int = 0
    token_ttl: int = 0
    bind_secret_id: bool = True
    secret_id_bound_cidrs: list[str] = []
    secret_id_num_uses: int = 0
    secret_id_ttl: int = 0


def put_role(
    act: Act,
    caller: VaultCaller,
    mount: str,
    name: str,
    change: Callable[[Mapping[str, object]], dict[str, object]],
    *,
    role_id: str = "",
) -> LoginRole:
    """Store a role of the caller's agent at the login method `mount`, and return it. `change` receives the present
    settings (empty for a new role) and returns the new settings.

    `role_id`: the role ID of a new role; empty: a random role ID. Raises Invalid for a malformed name, a role ID in
    use, settings that are too long, policies that the caller does not have, or too many roles.
    """
    registry.fill_entry(act, object=f"{mount}/{check_role_name(name)}")
    agent = caller.agent.agent_id
    role = store.login_roles.get(act.tx, mount, agent, name)
    if role is None:
        if len(store.login_roles.names(act.tx, mount, agent, limit=MAX_ROLES)) >= MAX_ROLES:
            raise Invalid(f"the agent has {MAX_ROLES} roles at this mount, which is the limit", hint="delete a role")
        role = LoginRole(mount, agent, name, role_id or _new_id(act), {})
        _check_role_id(act, role, of="name" if role_id else "role ID")
    settings = change(role.settings)
    _check_size(settings)
    role = role._replace(settings=settings)
    check_assignable(caller, read_settings(role).policies)
    store.login_roles.put(act.tx, role)
    return role


def _check_size(settings: dict[str, object]) -> None:
    if len(msgspec.json.encode(settings)) > MAX_SETTINGS:
        raise Invalid(f"the settings have more than {MAX_SETTINGS} bytes")


def _check_role_id(act: Act, role: LoginRole, *, of: str = "role ID") -> None:
    """Check that no other role of the mount has the role ID of this role. Raises Invalid otherwise, which names the
    role ID as `of`: at methods other than AppRole, the name of a role is also its role ID.
    """
    present = store.login_roles.get_by_id(act.tx, role.mount, role.role_id or "")
    if present is not None and (present.agent, present.name) != (role.agent, role.name):
        raise Invalid(f"another role of the mount has this {of}", hint=f"choose another {of}")


def read_settings(role: LoginRole) -> RoleSettings:
    """Return the settings of a role that determine the tokens of its logins."""
    return convert(role.settings, RoleSettings)


def find_role(act: Act, caller: VaultCaller, mount: str, name: str) -> LoginRole:
    """Return a role of the caller's agent. Raises NothingStored if there is none."""
    registry.fill_entry(act, object=f"{mount}/{name[:128]}")
    role = store.login_roles.get(act.tx, mount, caller.agent.agent_id, name)
    if role is None:
        raise NothingStored("there is no such role", code="role_not_found")
    return role


def has_role(mount: str, name: str, act: Act, caller: VaultCaller) -> bool:
    """Return whether the caller's agent has a role of this name."""
    return store.login_roles.get(act.tx, mount, caller.agent.agent_id, name) is not None


def list_roles(act: Act, caller: VaultCaller, mount: str) -> list[str]:
    """Return the names of the roles of the caller's agent at a login method. Raises NothingStored if there is none."""
    if not (names := store.login_roles.names(act.tx, mount, caller.agent.agent_id, limit=MAX_ROLES)):
        raise NothingStored("there is no role")
    return names


def set_role_id(act: Act, caller: VaultCaller, mount: str, name: str, role_id: str) -> None:
    """Set the role ID of an AppRole role, which a login sends with a secret ID. Raises Invalid for a malformed role ID,
    or one in use; NothingStored for an unknown role.
    """
    role = find_role(act, caller, mount, name)
    if not 0 < len(role_id) <= MAX_ID_TEXT or not role_id.isprintable():
        raise Invalid(f"`role_id` must have 1 to {MAX_ID_TEXT} printable characters")
    role = role._replace(role_id=role_id)
    _check_role_id(act, role)
    store.login_roles.put(act.tx, role)


def delete_role(act: Act, caller: VaultCaller, mount: str, name: str) -> None:
    """Delete a role of the caller's agent, its secret IDs, and the tokens of their logins. Do nothing if there is no
    such role.
    """
    registry.fill_entry(act, object=f"{mount}/{name[:128]}")
    role = store.login_roles.get(act.tx, mount, caller.agent.agent_id, name)
    if role is not None:
        _end(act, store.login_roles.secret_ids(act.tx, role, limit=MAX_SECRET_IDS))
        store.login_roles.delete(act.tx, mount, role.agent, name)


def clear(act: Act, mount: str) -> None:
    """Delete all roles of a mount, with their secret IDs and the tokens of their logins. Raises Invalid if the mount
    has too many secret IDs.
    """
    secret_ids = store.login_roles.secret_ids_of_mount(act.tx, mount, limit=MAX_SECRET_IDS + 1)
    if len(secret_ids) > MAX_SECRET_IDS:
        raise Invalid(f"the mount has more than {MAX_SECRET_IDS} secret IDs", hint="delete some roles first")
    _end(act, secret_ids)
    store.login_roles.clear(act.tx, mount)


def _end(act: Act, secret_ids: list[SecretId], *, why: str = "the role was deleted") -> None:
    for one in secret_ids:
        registry.end_holdings(act, Root.HOLDING, one.holding, why=why)
        store.login_roles.delete_secret_id(act.tx, one.accessor)


# --- settings


def change_settings(
    caller: VaultCaller, changes: dict[str, Any], present: Mapping[str, object], *, durations: Collection[str] = ()
) -> dict[str, object]:
    """Return the settings of a role: `present`, with the changes of a request. Raises Invalid for an unsupported type
    of token, and for malformed settings.

    `durations`: the names of further members (besides `token_ttl` and the like) that are durations; the API accepts
    texts such as `1h`, and the server stores seconds.
    """
    if changes.get("token_type", "default") not in ("default", "service", "default-service"):
        raise Invalid(
            "only tokens of the type service are supported", hint="leave out `token_type`, or set it to service"
        )
    if "policies" in changes:
        changes.setdefault("token_policies", changes.pop("policies"))
    for one in (*_TOKEN_DURATIONS, *durations):
        if one in changes:
            changes[one] = parse_duration(changes[one], field=one) // SECOND
    for one in ("secret_id_num_uses", "token_num_uses"):
        if not 0 <= changes.get(one, 0) <= 1_000_000_000:
            raise Invalid(f"`{one}` must be 0 to 1000000000 uses (0: no limit)")
    for one in ("secret_id_bound_cidrs", "token_bound_cidrs", "token_policies"):
        if one in changes:
            changes[one] = parse_texts(changes[one], field=one)
            if one != "token_policies":
                check_networks(changes[one], field=one)
    settings: dict[str, Any] = {**present, **changes}
    has_default = not settings.get("token_no_default_policy", False)
    names = [*settings.get("token_policies", []), *(["default"] if has_default else [])]
    settings["policies"] = choose_policies(caller, names, has_default=has_default) if names else ()
    return settings


_TOKEN_DURATIONS = ("token_ttl", "token_max_ttl", "token_explicit_max_ttl", "token_period")


# --- the configuration of a method of `ROLE_METHODS`, and the authority of its roles


def put_config(act: Act, caller: VaultCaller, mount: str, settings: dict[str, object]) -> None:
    """Store the configuration of the caller's agent for a login method. A change ends the authority of the agent's
    roles there: each role admits no login until it is written again.

    Otherwise a token that may change only the configuration (such as the keys) could log in with the access of a
    stronger token that wrote a role. Raises Invalid if the settings are too long.
    """
    registry.fill_entry(act, object=f"{mount}/config")
    agent = caller.agent.agent_id
    present = store.login_roles.get(act.tx, mount, agent, CONFIG)
    if present is not None and present.settings == settings:
        return
    _check_size(settings)
    _end(
        act,
        store.login_roles.secret_ids_of_agent(act.tx, mount, agent, limit=MAX_ROLES),
        why="the keys of the method changed",
    )
    store.login_roles.put(act.tx, LoginRole(mount, agent, CONFIG, None, settings))


def find_config(act: Act, caller: VaultCaller, mount: str) -> dict[str, object]:
    """Return the configuration of the caller's agent for a login method. Raises NothingStored if there is none."""
    if (stored := store.login_roles.get(act.tx, mount, caller.agent.agent_id, CONFIG)) is None:
        raise NothingStored("the method is not configured")
    return stored.settings


def renew_authority(act: Act, caller: VaultCaller, role: LoginRole) -> None:
    """Replace the authority of a role (the access that its logins get) by the scopes and bounds of the caller, who
    writes the role. For the login methods in `ROLE_METHODS`, such as JWT.
    """
    act.check_granting()
    _end(act, store.login_roles.secret_ids(act.tx, role, limit=MAX_SECRET_IDS), why="the role was written")
    digest = _digest(act, role, act.tx.random(32).hex())
    _insert(act, caller, role, digest, metadata={}, networks=[], uses=0, seconds=LONGEST_AUTHORITY_S)


def find_authority(act: Act, role: LoginRole) -> tuple[SecretId, Holding]:
    """Return the authority of a role (the access that its logins get): a secret ID without a text, and its holding. For
    the login methods in `ROLE_METHODS`, such as JWT. Raises LoginRefused if the authority has ended.
    """
    for one in store.login_roles.secret_ids(act.tx, role, limit=1):
        holding = registry.get_holding(act.tx, one.holding)
        if holding is not None and holding.is_live(act.now):
            act.entry.agent, act.entry.token = holding.agent, holding.id
            return one, holding
    raise LoginRefused(
        "the authority of the role has ended",
        hint="the agent of the role must write the role again after each change of `config`",
    )


# --- secret IDs


def generate_secret_id(
    act: Act,
    caller: VaultCaller,
    mount: str,
    name: str,
    *,
    text: str,
    metadata: dict[str, str],
    networks: list[str],
    uses: int | None,
    seconds: int | None,
) -> tuple[str, SecretId]:
    """Create a secret ID of a role; return its text and its record. `text` is the text that the caller chose, or empty
    for a random text.

    `networks`: the addresses from which the secret ID may be used; empty: those of the role. `uses`, `seconds`: limits
    of the secret ID; None: the limits of the role. Raises NothingStored for an unknown role, Invalid for limits beyond
    those of the role, for a text that is taken or malformed, and for too many secret IDs.
    """
    act.check_granting()
    role = find_role(act, caller, mount, name)
    settings = read_settings(role)
    check_assignable(caller, settings.policies)
    check_networks(networks, field="cidr_list")
    if not are_within(networks, settings.secret_id_bound_cidrs):
        raise Invalid("`cidr_list` has networks outside the role's secret_id_bound_cidrs")
    if uses is not None and (uses < 0 or _is_beyond(uses, settings.secret_id_num_uses)):
        raise Invalid(
            "num_uses cannot be negative, higher than the role's secret_id_num_uses, or 0 if the role has a limit"
        )
    if seconds is not None and _is_beyond(seconds, settings.secret_id_ttl):
        raise Invalid("ttl cannot be longer than the role's secret_id_ttl, or 0 if the role has a limit")
    if len(store.login_roles.secret_ids(act.tx, role, limit=MAX_SECRET_IDS)) >= MAX_SECRET_IDS:
        raise Invalid(
            f"the role has {MAX_SECRET_IDS} secret IDs, which is the limit",
            hint="destroy secret IDs that are not needed",
        )
    text = text or _new_id(act)
    if len(text) > MAX_ID_TEXT or not text.isprintable():
        raise Invalid(f"`secret_id` must have 1 to {MAX_ID_TEXT} printable characters")
    digest = _digest(act, role, text)
    if store.login_roles.get_secret_id(act.tx, digest) is not None:
        raise Invalid("SecretID is already registered")
    lifetime = min(seconds or settings.secret_id_ttl or LONGEST_SECRET_ID_S, LONGEST_SECRET_ID_S)
    count = settings.secret_id_num_uses if uses is None else uses
    networks = networks or settings.secret_id_bound_cidrs
    one = _insert(act, caller, role, digest, metadata=metadata, networks=networks, uses=count, seconds=lifetime)
    act.entry.detail = {**(act.entry.detail or {}), "secret_id": one.accessor}
    return text, one


def _insert(
    act: Act,
    caller: VaultCaller,
    role: LoginRole,
    digest: bytes,
    *,
    metadata: dict[str, str],
    networks: list[str],
    uses: int,
    seconds: int,
) -> SecretId:
    """Store a secret ID, and return it. A secret ID is a holding with the scopes and bounds of the caller."""
    above = registry.get_holding(act.tx, caller.holding)
    assert above is not None  # the caller was authenticated in this act
    one = SecretId(
        mount=role.mount,
        agent=role.agent,
        role=role.name,
        accessor=_new_id(act),
        holding=act.new_id("vs"),
        metadata=metadata,
        networks=networks,
        uses=uses,
        bounds=lists_of(caller),
        scopes=caller.scopes,
        details=caller.details,
        uses_left=uses,
        created_at=act.now,
        expires_at=act.now + seconds * SECOND,
    )
    registry.add_holding(
        act,
        Holding(
            id=HoldingId(one.holding),
            kind=KIND,
            agent=caller.agent.agent_id,
            task=caller.task.task_id,
            client_jkt=above.client_jkt,
            audience=above.audience,
            expires_at=one.expires_at,
        ),
    )
    store.login_roles.insert_secret_id(act.tx, digest, one)
    return one


def _is_beyond(value: int, limit: int) -> bool:
    """Return whether `value` is greater than the limit of a role. 0 means "no limit", for both."""
    return bool(limit) and not 0 < value <= limit


def find_secret_id(
    act: Act, caller: VaultCaller, mount: str, name: str, unverified: str, *, is_accessor: bool
) -> SecretId:
    """Return a secret ID of a role of the caller's agent. `unverified`: its text, or, with `is_accessor`, its accessor.
    Raises NothingStored if there is none, or it has ended.
    """
    role = find_role(act, caller, mount, name)
    if is_accessor:
        one = store.login_roles.get_by_accessor(act.tx, unverified)
    else:
        one = store.login_roles.get_secret_id(act.tx, _digest(act, role, unverified))
    holding = None if one is None else registry.get_holding(act.tx, one.holding)
    is_of_role = one is not None and (one.mount, one.agent, one.role) == (mount, role.agent, name)
    if one is None or holding is None or not is_of_role or not holding.is_live(act.now):
        raise NothingStored("there is no such secret ID", code="secret_id_not_found")
    return one


def destroy_secret_id(act: Act, one: SecretId) -> None:
    """Delete a secret ID, and end the tokens of the logins by it."""
    registry.end_holdings(act, Root.HOLDING, one.holding, why="the secret ID was destroyed")
    store.login_roles.delete_secret_id(act.tx, one.accessor)


def list_secret_ids(act: Act, caller: VaultCaller, mount: str, name: str) -> list[str]:
    """Return the accessors of the secret IDs of a role. Raises NothingStored if the role is unknown, or has no secret
    ID.
    """
    role = find_role(act, caller, mount, name)
    listed = [one.accessor for one in store.login_roles.secret_ids(act.tx, role, limit=MAX_SECRET_IDS)]
    if not listed:
        raise NothingStored("the role has no secret ID")
    return listed


def use_secret_id(
    act: Act, mount: str, role_id: str, unverified: str, *, address: str
) -> tuple[LoginRole, SecretId, Holding]:
    """Return the role, the secret ID and its holding for a login, and count the login as a use of the secret ID. Raises
    LoginRefused if the role ID or the secret ID is wrong, if the secret ID has ended or has no uses left, or if it is
    bound to other addresses.
    """
    role = store.login_roles.get_by_id(act.tx, mount, role_id)
    digest = _digest(act, role or LoginRole(mount, "", "", None, {}), unverified)
    one = store.login_roles.get_secret_id(act.tx, digest)
    holding = None if one is None else registry.get_holding(act.tx, one.holding)
    if role is None or one is None or holding is None or not holding.is_live(act.now) or one.uses_left < 0:
        raise LoginRefused("invalid role or secret ID")
    act.entry.agent, act.entry.token = holding.agent, holding.id
    if holding.agent != role.agent or not is_in_networks(address, one.networks):
        raise LoginRefused("invalid role or secret ID: the secret ID is bound to other addresses")
    if one.uses_left:
        store.login_roles.set_uses(act.tx, digest, one.uses_left - 1 or -1)
    return role, one, holding


def _digest(act: Act, role: LoginRole, unverified: str) -> bytes:
    """Return the keyed hash of a secret ID of a role. Mount, agent, role and text are separated by line ends, which
    names do not contain.
    """
    return token_digest(act.tx.keys, f"{role.mount}\n{role.agent}\n{role.name}\n{unverified}")


def _new_id(act: Act) -> str:
    """Return a random identifier in the form of a UUID."""
    text = act.tx.random(16).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def render_settings(role: LoginRole, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a role, with the values in `defaults` for settings that no request has set."""
    return {**defaults, **role.settings}
