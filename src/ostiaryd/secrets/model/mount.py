"""Mounts that agents enable while the server runs, in addition to the fixed mounts: secret engines, and login methods
at `auth/`.
"""

from __future__ import annotations

import re

import msgspec

from ostiary.protocol.errors import Invalid
from ostiaryd.secrets.model.request import SECOND, parse_duration

AUTH = "auth/"
"""beginning of the paths of login methods"""
MAX_MOUNTS = 100
MAX_SEGMENTS = 4
DEFAULT_TTL_S = MAX_TTL_S = 2_764_800
"""Seconds that the API shows for a mount whose own lifetimes are 0, as Vault does."""
MAX_DESCRIPTION = 500
RESERVED = frozenset({"auth", "cubbyhole", "identity", "sys"})
_PATH = re.compile(
    rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,62}}(?:/[A-Za-z0-9_][A-Za-z0-9_.-]{{0,62}}){{0,{MAX_SEGMENTS - 1}}}"
)


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """A path at which the Vault API serves a secrets engine, or, below `auth/`, a login method. `path` has no slash at
    its end. `version`: the version of a key-value store. Lifetimes are seconds; 0 stands for the lifetime of the
    server.
    """

    path: str
    type: str
    version: str = ""
    description: str = ""
    default_ttl: int = 0
    max_ttl: int = 0
    accessor: str
    created_at: int


def check_mount_path(path: str) -> str:
    """Return the path of a mount without the slash at its end. Raises Invalid if the path is not valid."""
    path = path.removesuffix("/")
    if not _PATH.fullmatch(path) or path.partition("/")[0] in RESERVED:
        raise Invalid(
            f"a mount has 1 to {MAX_SEGMENTS} segments of letters, digits, dots, hyphens and underscores, "
            f"and does not begin with {', '.join(sorted(RESERVED))}"
        )
    return path


def prefixes(path: str) -> list[str]:
    """Return the paths of the mounts that could serve a request for `path`, the longest first."""
    segments = path.split("/", MAX_SEGMENTS)[:MAX_SEGMENTS]
    return ["/".join(segments[:count]) for count in range(len(segments), 0, -1)]


def parse_ttl(value: object, *, field: str) -> int | None:
    """Return a lifetime of a mount in seconds; 0 for the text `system`, which stands for the lifetime of the server;
    None if `value` is absent, empty or 0, so that the lifetime stays. Raises Invalid for a text that is not a duration.
    """
    if value == "system":
        return 0
    return parse_duration(value, field=field) // SECOND if value not in (None, "", 0) else None
