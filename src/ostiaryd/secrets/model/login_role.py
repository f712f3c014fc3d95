"""Roles at login methods that agents enabled, roles for child tokens, and secret IDs of AppRole.

The authority of a role of `ROLE_METHODS` is stored as a secret ID without a text, and has the scopes and bounds of the
token that wrote the role.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from ostiary.authorization.bounds import ToolDetail
from ostiary.protocol.errors import Invalid
from ostiary.protocol.proxies import is_within, parse_networks

KIND = "vault_secret_id"
"""Kind under which secret IDs are stored as holdings."""
ROLE_METHODS = ("cert", "jwt", "kubernetes")
"""types of login methods whose roles have the authority of the token that wrote the role"""
TOKEN_MOUNT = "auth/token"
"""the mount of roles for child tokens"""
MAX_ROLES = 100
"""Maximum number of roles of one agent at one mount."""
MAX_SECRET_IDS = 1000
LONGEST_SECRET_ID_S = 30 * 86_400
LONGEST_AUTHORITY_S = 365 * 86_400
"""Maximum seconds after its last write for which a role of `ROLE_METHODS` issues tokens."""
CONFIG = ""
"""the name, in the table of roles, of the row with an agent's configuration of a login method"""
MAX_SETTINGS = 16 << 10
MAX_NETWORKS = 32
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class LoginRole(NamedTuple):
    """A role that an agent wrote at a login method of the Vault API, and whose logins act as this agent. `role_id`: the
    id by which a login names the role: the role ID of AppRole, or the name for `ROLE_METHODS`; None for an agent's
    configuration of the method (`CONFIG`). `settings`: the members of the API, which were checked when the role was
    written.
    """

    mount: str
    agent: str
    name: str
    role_id: str | None
    settings: dict[str, object]


class RoleBody(msgspec.Struct):
    """The members of a request that writes a role, as far as they limit the tokens of its logins. An absent member
    keeps its present value.
    """

    token_bound_cidrs: str | list[str] | UnsetType = UNSET
    token_explicit_max_ttl: int | str | UnsetType = UNSET
    token_max_ttl: int | str | UnsetType = UNSET
    token_no_default_policy: bool | UnsetType = UNSET
    token_num_uses: int | UnsetType = UNSET
    token_period: int | str | UnsetType = UNSET
    token_policies: str | list[str] | UnsetType = UNSET
    token_ttl: int | str | UnsetType = UNSET
    token_type: str | UnsetType = UNSET
    policies: str | list[str] | UnsetType = UNSET

    def stated(self) -> dict[str, Any]:
        """Return the members of a role that the request states, by name."""
        return {one: value for one in self.__struct_fields__ if (value := getattr(self, one)) is not UNSET}


TOKEN_DEFAULTS: Mapping[str, object] = {
    "token_bound_cidrs": [],
    "token_explicit_max_ttl": 0,
    "token_max_ttl": 0,
    "token_no_default_policy": False,
    "token_num_uses": 0,
    "token_period": 0,
    "token_policies": [],
    "token_ttl": 0,
    "token_type": "default",
}
"""The values of the members of `RoleBody` in a response if no request has set them."""


class SecretId(msgspec.Struct, frozen=True, kw_only=True):
    """A secret ID (the password of an AppRole login) without its text, or the authority of a role of `ROLE_METHODS`.
    The scopes and bounds are those of the token that generated the secret ID or wrote the role.

    `uses_left`: 0: no limit; -1: no uses left. Times are microseconds since the epoch.
    """

    mount: str
    agent: str
    role: str
    accessor: str
    holding: str
    metadata: dict[str, str]
    networks: list[str]
    uses: int
    bounds: tuple[tuple[str, ...], ...]
    """the lists of Vault policies of the token that generated the secret ID; each list must permit a request"""
    scopes: frozenset[str]
    details: tuple[ToolDetail, ...]
    uses_left: int
    created_at: int
    expires_at: int


def check_role_name(name: str) -> str:
    """Return `name` if it is a valid name of a role. Raises Invalid otherwise."""
    if not _NAME.fullmatch(name):
        raise Invalid("the name of a role must have 1 to 128 letters, digits, dots, hyphens and underscores")
    return name


def check_networks(networks: list[str], *, field: str) -> list[str]:
    """Return the networks if they are valid. `field`: the name of the member in error messages. Raises Invalid for too
    many networks, or a text that is no network.
    """
    if len(networks) > MAX_NETWORKS:
        raise Invalid(f"`{field}` may have at most {MAX_NETWORKS} networks", hint="join networks to fewer, larger ones")
    try:
        parse_networks(" ".join(networks))
    except ValueError:
        raise Invalid(
            f"`{field}` has a text that is not a network",
            hint="use networks without host bits, such as 192.0.2.0/24 or 2001:db8::/64",
        ) from None
    return networks


def are_within(networks: list[str], bounds: list[str]) -> bool:
    """Return whether each network is within one of `bounds`; True if `bounds` is empty."""
    outer = parse_networks(" ".join(bounds))
    return not bounds or all(
        any(one.version == other.version and one.subnet_of(other) for other in outer)  # type: ignore[arg-type]
        for one in parse_networks(" ".join(networks))
    )


def is_in_networks(address: str, networks: list[str]) -> bool:
    """Return whether an address is in one of `networks`; True if `networks` is empty."""
    return not networks or is_within(address, parse_networks(" ".join(networks)))
