"""Requests and responses of the Vault HTTP API, independent of HTTP; and the paths, patterns, durations and times of
the API.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Invalid, Malformed, NotFound, Refused
from ostiaryd.certs.model.keys import PrivateKey

T = TypeVar("T", bound=msgspec.Struct)
SECOND = 1_000_000
MAX_PATH = 512
MAX_NUMBER = (1 << 53) - 1
MAX_DURATION_S = 100 * 365 * 86_400
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 because the times of the API are in UTC, and end with Z
_CONTROL = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode categories of control characters and line separators."""
_PLAIN_PATH = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)*/?", re.ASCII)
"""Pattern of most paths; each such path is valid, up to its length."""
_DURATION = re.compile(r"\d{1,13}|\d{1,7}d|\+?(?:\d{1,10}(?:\.\d{1,9})?(?:h|ms|us|µs|ns|m|s))+", re.ASCII)
_PART = re.compile(r"([0-9.]+)(\D*)")
_UNITS = {
    "d": Fraction(86_400),
    "h": Fraction(3600),
    "m": Fraction(60),
    "s": Fraction(1),
    "": Fraction(1),
    "ms": Fraction(1, 1000),
    "us": Fraction(1, 1_000_000),
    "µs": Fraction(1, 1_000_000),
    "ns": Fraction(1, 1_000_000_000),
}
"""Number of seconds of each unit in which a duration can be written."""
MAX_DURATION_TEXT = 64


class SecretAction(StrEnum):
    """An action on a secret, a key, an account token or the seal; its value is the name that Cedar policies use."""

    READ = "read_secret"
    WRITE = "write_secret"
    LIST = "list_secrets"
    DELETE = "delete_secret"
    USE = "use_secret_key"
    EXPORT = "export_secret_key"
    INJECT = "use_secret"
    SEAL = "seal_secrets"
    TOKEN = "read_account_token"


ENTRY_ACTIONS = {
    SecretAction.READ: "vault.read",
    SecretAction.WRITE: "vault.write",
    SecretAction.LIST: "vault.list",
    SecretAction.DELETE: "vault.delete",
    SecretAction.USE: "vault.use",
    SecretAction.EXPORT: "vault.export",
    SecretAction.INJECT: "vault.inject",
    SecretAction.SEAL: "vault.seal",
    SecretAction.TOKEN: "vault.read",
}
"""The action of the ledger entry for each action in policies."""


class VaultMethod(StrEnum):
    """A method of the API. POST and PUT are both writes; `GET ?list=true` is the same as the method LIST."""

    READ = "read"
    WRITE = "write"
    PATCH = "patch"
    DELETE = "delete"
    LIST = "list"


class UnsupportedOperation(Refused):
    """The Vault API of this server has no such operation at this path."""

    code = "unsupported_operation"


class NothingStored(NotFound):
    """The path has no value (the response contains no message, as in Vault), or no mount of the Vault API has the path
    (code `no_route`).
    """

    code = "nothing_stored"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The response of a secrets engine to a request of the Vault API. `data`: the member `data` of the response's JSON;
    None if there is none.
    """

    data: Any = None
    status: int = 200
    lease_s: int = 0
    """the member `lease_duration` of the response, in seconds"""
    auth: Any = None
    wrap_info: Any = None
    """the wrapping token, if the answer is wrapped"""
    lease_id: str = ""
    is_renewable: bool = False
    upstream: Any = None
    """the request to another system that the server sends after the transaction (`model.upstream`); its result replaces
    this response
    """

    def __repr__(self) -> str:
        """Return only the status: the data is secret."""
        return f"Answer({self.status})"


class VaultRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request of the Vault API to a secrets engine: the method, the path (below `/v1/`, or below the mount for an
    engine), the members of the body, and the query.
    """

    method: VaultMethod
    path: str
    body: Mapping[str, Any]
    query: Mapping[str, str]
    private_key: PrivateKey | None = None
    """the private key that the server generated for the request before the transaction (`key_generation.KeyNeeded`)"""

    def __repr__(self) -> str:
        """Return only method and path: the body is secret."""
        return f"VaultRequest({self.method} {self.path})"

    def read_body(self, kind: type[T], *, has_nulls: bool = False) -> T:
        """Return the body as a value of the type `kind`. Unknown members are ignored, as in Vault. Raises Malformed for
        members of wrong types.

        Vault's command line sends each member as a text, so numbers and truth values are read from texts, too. A member
        that is `null` is absent, as in Vault. `has_nulls`: true for a type in which `null` is a value.
        """
        body = self.body
        if not has_nulls:
            body = {name: value for name, value in body.items() if value is not None}
        return convert_members(body, kind)


def convert_members(members: Mapping[str, Any], kind: type[T]) -> T:
    """Return the members of a request as a value of the type `kind`. Numbers and truth values may be texts. Unknown
    members are ignored. Raises Malformed for members of wrong types, and for numbers out of range.
    """
    try:
        value = convert(members, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Malformed(str(error)) from None
    for name in members:
        if isinstance(number := getattr(value, name, None), int) and abs(number) > MAX_NUMBER:
            raise Malformed(f"`{name}` must be -{MAX_NUMBER} to {MAX_NUMBER}")
    return value


def is_set(value: object) -> bool:
    """Return whether a member of a request has a value other than an empty value, 0 or false. The texts `0` and `false`
    count as 0 and false.
    """
    return value not in (None, "", 0, "0", "false", [], {})


def check_path(path: str) -> str:
    """Return the path below `/v1/` if it is valid. A slash at the end is kept, since a list needs it. Raises Malformed
    otherwise.

    The path was percent-decoded once. A path that two programs could read differently is refused: empty segments,
    segments of dots only (`.` and `..`), control characters, backslashes, percent signs, text that is not in Unicode
    normal form C, and the character that replaces bytes that are not UTF-8.
    """
    if not 0 < len(path) <= MAX_PATH:
        raise Malformed(f"the path must have 1 to {MAX_PATH} characters")
    if _PLAIN_PATH.fullmatch(path) is not None:
        return path
    if unicodedata.normalize("NFC", path) != path:
        raise Malformed("the path is not in Unicode's normal form C")
    if any(letter in path for letter in "\\%\ufffd") or not _CONTROL.isdisjoint(map(unicodedata.category, path)):
        raise Malformed(
            "the path contains a control character, a backslash, a percent sign, or bytes that are not UTF-8"
        )
    segments = path.removesuffix("/").split("/")
    if any(not segment.strip(".") for segment in segments):
        raise Malformed(
            "the path contains an empty segment, or a segment of dots only", hint="use a path such as secret/app/db"
        )
    return path


def split_path(path: str) -> tuple[str, str]:
    """Return the first segment of a path, and the part after its slash."""
    head, _, rest = path.partition("/")
    return head, rest


def parse_duration(value: object, *, field: str) -> int:
    """Return a duration in microseconds, from a number of seconds, or from a text such as `90`, `1h30m`, `1.5h` or
    `2d`; an empty text is 0. `field`: the name of the member in error messages. Raises Invalid for another text, a
    duration that is negative or too long, or a duration that is not whole seconds, because members rounded to 0 would
    get their default.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        seconds = value
    else:
        if not isinstance(value, str) or len(value) > MAX_DURATION_TEXT or (value and not _DURATION.fullmatch(value)):
            raise Invalid(f"`{field}` is not a duration", hint="write a duration as 3600 or 1h30m")
        exact = sum((Fraction(number) * _UNITS[unit] for number, unit in _PART.findall(value)), Fraction(0))
        if exact.denominator != 1:
            raise Invalid(f"`{field}` is not a number of whole seconds", hint="write a duration as 3600 or 1h30m")
        seconds = exact.numerator
    if not 0 <= seconds <= MAX_DURATION_S:
        raise Invalid(f"`{field}` must be 0 to {MAX_DURATION_S} seconds")
    return seconds * SECOND


def parse_texts(value: str | list[str], *, field: str) -> list[str]:
    """Return the texts of a list, or of a text with commas between them. `field`: the name of the member in error
    messages. Raises Invalid if `value` contains only blank texts, because an empty list often stands for "no limit".
    """
    texts = [one.strip() for one in (value.split(",") if isinstance(value, str) else value) if one.strip()]
    if value and not texts:
        raise Invalid(f"`{field}` contains only blank texts", hint="send an empty list for no value")
    return texts


def parse_pairs(value: dict[str, str] | str | list[str], *, field: str) -> dict[str, str]:
    """Return the pairs of an object, of a text `NAME=VALUE`, or of a list of such texts, as Vault's command line sends
    them. `field`: the name of the member in error messages. Raises Invalid for another text, and for a name that occurs
    twice.
    """
    if isinstance(value, dict):
        return value
    pairs: dict[str, str] = {}
    for text in [value] if isinstance(value, str) else value:
        name, equals, content = text.partition("=")
        if not equals or name in pairs:
            raise Invalid(f"`{field}` must be an object, or texts of the form NAME=VALUE, each with a different name")
        pairs[name] = content
    return pairs


def matches_glob(pattern: str, text: str) -> bool:
    """Return whether a pattern, in which `*` stands for any text, matches `text`. The time is linear in the length of
    the text.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == text
    *middle, last = rest
    if not text.startswith(first) or not text[len(first) :].endswith(last):
        return False
    place, end = len(first), len(text) - len(last)
    for part in middle:
        start = text.find(part, place, end)
        if start < 0:
            return False
        place = start + len(part)
    return True


def render_duration(microseconds: int) -> str:
    """Return a duration in the form of the API, such as `1h30m0s`."""
    minutes, seconds = divmod(microseconds // SECOND, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


@lru_cache(maxsize=4096)
def render_time(at: int | None) -> str:
    """Return a time (microseconds since the epoch) in the form of the API (RFC 3339); an empty text for None. Cached,
    because each read of a secret returns the time of its version.
    """
    if at is None:
        return ""
    return (_EPOCH + timedelta(microseconds=at)).isoformat(timespec="microseconds") + "Z"
