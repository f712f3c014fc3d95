"""Vault tokens: short-lived bearer tokens of agents for the Vault API, each bound to a network address (ADR 108)."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

import msgspec

from ostiary.authorization.bounds import ToolDetail
from ostiary.protocol import jose
from ostiary.protocol.errors import Forbidden
from ostiaryd.secrets.model.request import SECOND

TOKEN_KIND = "vault_token"
"""kind of the holdings that are Vault tokens"""
TOKEN_PREFIX = "hvs."
DEFAULT_S = 3600
MAX_BOUNDS = MAX_ABOVE = 16
"""Maximum number of tokens above a child token, and of lists of Vault policies that limit a token."""
LONGEST_S = 86_400
"""Maximum seconds from the issue of a token to its end, with all renewals."""


class TokenOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The settings of a token that the caller or a role chose. Times in seconds; 0: not set."""

    policies: tuple[str, ...] | None = None
    """names of the Vault policies that limit the token; None: no Vault policy limits the token"""
    bounds: tuple[tuple[str, ...], ...] = ()
    """the lists of Vault policies of the tokens above (the parent, the parent's parent); each list must permit a
    request, too
    """
    metadata: dict[str, str] = {}
    display_name: str = ""
    path: str = ""
    """the path of the request that created the token, such as `auth/token/create`; empty for a login at a fixed
    method
    """
    role: str = ""
    """the role for child tokens under which the token was created"""
    period_s: int = 0
    explicit_max_s: int = 0
    uses: int = 0
    is_renewable: bool = True
    is_orphan: bool = True
    above: tuple[str, ...] = ()
    """accessors of the tokens above, the nearest first; when one of them expires, this token ends"""


NO_OPTIONS = TokenOptions()


class VaultToken(msgspec.Struct, frozen=True, kw_only=True):
    """A Vault token without its text. `holding`: the id of the token's record among the holdings of its agent, by which
    the token ends with its agent, task or parent. `source`: the login method, or `token` for a child token. `network`:
    the addresses from which the token is valid. Times are microseconds since the epoch.
    """

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
    """bounds of the access token of the login, in addition to the bounds of the task"""
    agent: str = ""
    options: TokenOptions = NO_OPTIONS
    uses_left: int = 0
    """number of uses left; 0: no limit, -1: none left"""


def render_token(random: bytes) -> str:
    """Return the text of a token from 32 random bytes."""
    return TOKEN_PREFIX + jose.b64u(random)


def network_of_address(address: str) -> str:
    """Return the network that consists of this one address. Raises Forbidden if `address` is not an IP address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        raise Forbidden("the address of the client is not known, and a token is bound to an address") from None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return f"{parsed}/{parsed.max_prefixlen}"


def choose_end(token: VaultToken, increment_s: int | None, *, now: int) -> int:
    """Return the end (microseconds) of a token that is renewed now. The end is `now` plus the period of the token;
    without a period, `now` plus `increment_s` seconds, or, if that is None, plus the token's first lifetime. The end is
    at most the token's own maximum lifetime, and at most `LONGEST_S`, after the issue of the token.
    """
    seconds = token.options.period_s or (token.seconds if increment_s is None else increment_s)
    longest = min(LONGEST_S, token.options.explicit_max_s or LONGEST_S)
    return min(now + seconds * SECOND, token.created_at + longest * SECOND)
