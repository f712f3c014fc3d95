"""Back ends: existing stores whose secrets agents read at `backend/NAME/PATH`, without a copy in this server.

An address is a URL, an absolute folder, or `env:PREFIX`. The setting `secret_backends` names each permitted address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, assert_never
from urllib.parse import urlsplit

import msgspec

from ostiary.protocol import canonical
from ostiary.protocol.errors import Forbidden, Invalid, Malformed, Unavailable
from ostiaryd.secrets.model.keyvalue import MAX_VALUE
from ostiaryd.secrets.model.request import NothingStored, check_path

BACKEND_MOUNT = "backend"
MAX_BACKENDS = 100
MAX_CACHE_S = 300
MAX_ANSWER = 4 * MAX_VALUE
"""Maximum number of bytes that the server reads of one response of a back end."""
MAX_NAMES = 10_000
RESERVED = "agents"
"""A name that a back end must not have, because `agents/NAME/` in a mount is the folder of the agent NAME."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_PREFIX = re.compile(r"env:[A-Z][A-Z0-9_]{1,100}_")
_CREDENTIAL = re.compile(r"[\x21-\x7e]{1,4096}")


class BackendFailed(Unavailable):
    """The back end is unreachable or too slow, refuses the server's credentials, or sends an invalid response."""

    code = "backend_failed"


class DeletionScheduled(NothingStored):
    """Raised if the secret is scheduled for deletion at the back end. Until the secret is restored there, or its
    deletion is complete, the back end neither returns nor accepts a value of the secret.
    """


class BackendKind(StrEnum):
    """The kind of a back end (an existing store of secrets), such as `vault-kv2`."""

    VAULT_V2 = "vault-kv2"
    VAULT_V1 = "vault-kv1"
    AWS = "aws"
    KUBERNETES = "kubernetes"
    FILES = "files"
    ENVIRONMENT = "environment"

    @property
    def credentials(self) -> frozenset[str]:
        """Return the names of the credentials that the kind of back end needs."""
        match self:
            case BackendKind.VAULT_V2 | BackendKind.VAULT_V1:
                return frozenset({"token"})
            case BackendKind.AWS:
                return frozenset({"access_key_id", "secret_access_key"})
            case BackendKind.KUBERNETES | BackendKind.FILES | BackendKind.ENVIRONMENT:
                return frozenset()

    @property
    def is_writable(self) -> bool:
        """Return whether a synchronisation can write values to back ends of this kind."""
        return self in (BackendKind.VAULT_V2, BackendKind.VAULT_V1, BackendKind.AWS)


class BackendConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a back end, without its credentials. `address`: a URL; for Kubernetes and files, a folder;
    for environment variables, `env:PREFIX_`. `mount`: the mount at the Vault server. `region`: the AWS region.
    `cache_s`: the seconds for which a value stays in the memory cache.
    """

    kind: BackendKind
    address: str
    mount: str = ""
    region: str = ""
    cache_s: int = 30


class BackendValue(NamedTuple):
    """The present value at a path of a back end. `version`: the version number at the back end; 0 if the back end has
    no versions.
    """

    data: Mapping[str, Any]
    version: int = 0

    def __repr__(self) -> str:
        """Return only the version: the data is secret."""
        return f"BackendValue({self.version})"

    @property
    def json(self) -> bytes:
        """Return the value as canonical JSON: equal values have equal texts."""
        return canonical.encode(self.data, floats=True)


class Backend(Protocol):
    """A client of an existing store of secrets. The caller has checked each path; each method raises BackendFailed if
    the store refuses the request or does not answer.
    """

    async def read(self, path: str) -> BackendValue:
        """Return the value at a path. Raises NothingStored if there is none."""

    async def list_names(self, folder: str) -> list[str]:
        """Return the names in a folder. `folder` is empty or ends with a slash; names of folders end with a slash."""

    async def write(self, path: str, data: Mapping[str, Any], present: BackendValue | None) -> None:
        """Create a value if `present` is None, otherwise replace the value `present`. Raises Conflict if the store
        detects that another value is present.
        """


def check_name(name: str) -> str:
    """Return `name` if it is a valid name of a back end. Raises Invalid otherwise."""
    if not _NAME.fullmatch(name) or name == RESERVED:
        raise Invalid(
            "the name of a back end must have 1 to 64 lower-case letters, digits, hyphens and underscores, and must not"
            f" be {RESERVED}"
        )
    return name


def check_config(config: BackendConfig, *, permitted: Sequence[str]) -> BackendConfig:
    """Return the configuration if it is valid. `permitted`: the addresses in the setting `secret_backends`. Raises
    Forbidden for another address, Malformed for a malformed `mount`, Invalid for another member that is not valid.
    """
    check_address(config.address, permitted=permitted)
    is_url, is_folder = config.address.startswith(("https://", "http://")), config.address.startswith("/")
    match config.kind:
        case BackendKind.VAULT_V2 | BackendKind.VAULT_V1 | BackendKind.AWS:
            parts = urlsplit(config.address)
            if not is_url or parts.path or parts.query or parts.fragment or parts.username is not None:
                raise Invalid(f"`address` of the kind {config.kind} must be https://HOST[:PORT] or http://HOST[:PORT]")
        case BackendKind.KUBERNETES | BackendKind.FILES:
            if not is_folder:
                raise Invalid(f"`address` of the kind {config.kind} must be the absolute path of a folder")
        case BackendKind.ENVIRONMENT:
            if not _PREFIX.fullmatch(config.address) or config.address.startswith("env:OSTIARY_"):
                raise Invalid(
                    "`address` of the kind environment must be env:PREFIX_, and not the prefix of the server's own"
                    " settings"
                )
        case _:
            assert_never(config.kind)
    is_vault = config.kind in (BackendKind.VAULT_V1, BackendKind.VAULT_V2)
    if is_vault != bool(config.mount):
        raise Invalid(
            "`mount` is required for a Vault, and must be empty for other kinds", hint="write a mount as secret"
        )
    if is_vault:
        check_path(f"{config.mount}/x")
    if (config.kind is BackendKind.AWS) != bool(_REGION.fullmatch(config.region)):
        raise Invalid(
            "`region` is required for AWS, and must be empty for other kinds", hint="write a region as eu-west-1"
        )
    if not 0 <= config.cache_s <= MAX_CACHE_S:
        raise Invalid(f"`cache_s` must be 0 to {MAX_CACHE_S}")
    return config


def check_address(address: str, *, permitted: Sequence[str], setting: str = "secret_backends") -> None:
    """Check that the setting `setting`, whose addresses are `permitted`, names the address of another system. Raises
    Forbidden if it does not; the message contains no user and no password of the address.
    """
    if address not in permitted:
        raise Forbidden(
            f"the configuration does not permit the address {address.rpartition('@')[2][:100]}",
            hint=f"name the address in the setting `{setting}`",
            code="address_denied",
        )


def check_credentials(kind: BackendKind, credentials: Mapping[str, str]) -> Mapping[str, str]:
    """Return the credentials if they are valid for the kind of back end. Otherwise raises Invalid; the message contains
    no value.
    """
    if set(credentials) != kind.credentials:
        needed = " and ".join(f"`{name}`" for name in sorted(kind.credentials)) or "no member"
        raise Invalid(f"`credentials` of a back end of the kind {kind} must have {needed}")
    if any(not _CREDENTIAL.fullmatch(value) for value in credentials.values()):
        raise Invalid("a credential must have 1 to 4096 printable ASCII characters without spaces")
    return credentials


def parse_answer(body: bytes) -> dict[str, Any]:
    """Return the JSON object in the response of a back end. Raises BackendFailed for any other response."""
    try:
        answer = canonical.parse(body, max_bytes=MAX_ANSWER)
    except Malformed:
        raise BackendFailed("the response of the back end is not JSON") from None
    if not isinstance(answer, dict):
        raise BackendFailed("the response of the back end is not a JSON object")
    return answer


def check_value(value: object, version: object = 0) -> BackendValue:
    """Return the value in the response of a back end. Raises BackendFailed if the value has another type or is too
    long.
    """
    if not isinstance(value, dict):
        raise BackendFailed("the value at the back end is not a JSON object")
    try:
        size = len(canonical.encode(value, floats=True))
    except Malformed:
        raise BackendFailed("the value at the back end cannot be written as JSON") from None
    if size > MAX_VALUE:
        raise BackendFailed(f"the value at the back end has more than {MAX_VALUE} bytes")
    if type(version) is not int or version < 0:
        raise BackendFailed("the version at the back end is not a number")
    return BackendValue(value, version)


def check_names(names: object, folder: str) -> list[str]:
    """Return the names in the response of a back end about `folder`, sorted. Raises BackendFailed for too many names,
    or a text that is not one name of a secret or a folder.
    """
    if not isinstance(names, list):
        raise BackendFailed("the response of the back end is not a list of names")
    if len(names) > MAX_NAMES:
        raise BackendFailed(f"the folder at the back end has more than {MAX_NAMES} names")
    for name in names:
        if not isinstance(name, str) or not name.strip("/") or "/" in name.removesuffix("/"):
            raise BackendFailed("the back end lists a text that is not the name of a secret or a folder")
        try:
            check_path(f"{folder}{name}")
        except Malformed:
            raise BackendFailed("the back end lists a text that is not the name of a secret or a folder") from None
    return sorted(set(names))
