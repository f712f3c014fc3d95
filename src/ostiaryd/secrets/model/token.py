"""Vault tokens: short-lived bearer tokens of agents for the Vault API, each bound to a network address (ADR 108)."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

import msgspec

from ostiary.authorization.bounds import ToolDetail
from ostiary.protocol import jose
from ostiary.protocol.errors import Forbidden
from ostiaryd.secrets.model.request import SECOND

KIND = "vault_token"
"""kind of a holding that is a token"""
PREFIX = "hvs."
DEFAULT_S = 3600
MAX_BOUNDS = MAX_ABOVE = 16
"""Maximum number of tokens above a child token."""
LONGEST_S = 86_400
"""Maximum lifetime of a token after its login, in seconds; a renewal cannot exceed it."""


class TokenOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The members of a token that the caller chose, or a role. Times in seconds; 0: none."""

    policies: tuple[str, ...] | None = None
    """names of Vault policies that narrow the token; None: no Vault policy narrows it"""
    bounds: tuple[tuple[str, ...], ...] = ()
    """the lists of Vault policies of the tokens from which this one descends: each must permit a request too"""
    metadata: dict[str, str] = {}
    display_name: str = ""
    path: str = ""
    role: str = ""
    period_s: int = 0
    explicit_max_s: int = 0
    uses: int = 0
    is_renewable: bool = True
    is_orphan: bool = True
    above: tuple[str, ...] = ()
    """accessors of the tokens above, the nearest first; the token ends when one of them expires"""


NO_OPTIONS = TokenOptions()


class VaultToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token without its text. `holding`: the id of its holding. `source`: the login method. Times in microseconds."""

    holding: str
    accessor: str
    network: str
    seconds: int
    created_at: int
    renewed_at: int
    expires_at: int
    source: str
    acr: str
    scopes: frozenset[str]
    details: tuple[ToolDetail, ...]
    """bounds of the access token of the login, besides those of the task"""
    agent: str = ""
    options: TokenOptions = NO_OPTIONS
    uses_left: int = 0
    """0: no limit; -1: used up"""


def render_token(random: bytes) -> str:
    """Return a token that encodes 32 random bytes."""
    return PREFIX + jose.b64u(random)


def network_of_address(address: str) -> str:
    """Return the network that contains exactly one address. Raises Forbidden for text that is not an address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        raise Forbidden("the address of the client is not known, and a token is bound to an address") from None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return f"{parsed}/{parsed.max_prefixlen}"


def choose_end(token: VaultToken, increment_s: int | None, *, now: int) -> int:
    """Return the end of a token that is renewed now: by its period, by the increment, or by its first lifetime."""
    seconds = token.options.period_s or (token.seconds if increment_s is None else increment_s)
    longest = min(LONGEST_S, token.options.explicit_max_s or LONGEST_S)
    return min(now + seconds * SECOND, token.created_at + longest * SECOND)
