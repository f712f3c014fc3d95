"""Secrets of AWS Secrets Manager as values of the key-value store.

If a `SecretString` is a JSON object, the object is stored, so that clients of both APIs read the same members. Any
other text is stored as the member `SecretString`, and bytes are stored as the member `SecretBinary`. Attributes that
the key-value store does not have are stored as custom metadata whose names begin with `aws:`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Any, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Meta

from ostiary.protocol.errors import Conflict, Invalid, Malformed
from ostiary.protocol.jose import b64u, unb64u
from ostiaryd.secrets.model.schedule import DAY_S, HOUR_S, LONGEST_DAYS, Schedule, parse_schedule

DESCRIPTION, DELETION, TAG, VERSION = "aws:description", "aws:deletion", "aws:tag:", "aws:version:"
SHORTEST_WINDOW, DEFAULT_WINDOW, LONGEST_WINDOW = 7, 30, 30
DAY = 86_400_000_000
MAX_DESCRIPTION = 2048
MAX_FILTER_VALUE = 512
MAX_TAGS = 50
MAX_TAG_KEY, MAX_TAG_VALUE = 128, 256
LONGEST_PASSWORD = 4096
MAX_EXCLUDED = 4096
DEFAULT_KEY = "alias/aws/secretsmanager"
"""The name of the key that AWS uses without a `KmsKeyId`."""
FILTERS = ("all", "description", "name", "owning-service", "primary-region", "tag-key", "tag-value")
BY_WORDS = ("all", "description")
"""The filters that search for words."""
MAX_FILTER_WORDS, MAX_SEARCH_WORDS = 16, 100
"""Maximum number of words in one value of a filter in `BY_WORDS`, and in all of these values. Each word is searched for
in each text of a secret.
"""
MAX_CURSOR = 4096
_NAME = re.compile(r"[A-Za-z0-9/_+=.@-]{1,256}")
_NUMBER = re.compile(r"[0-9]{1,16}")
_MINUTE_S = 60
_ARN = re.compile(r"arn:(aws[a-z-]{0,16}):secretsmanager:([a-z0-9-]+):([0-9]{12}):secret:(.{1,263})")
_BETWEEN_WORDS = re.compile(r"[\s/+_=.@-]+")
_CASE_CHANGE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_UPPER, _LOWER, _DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "0123456789"
_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


class SecretExists(Conflict):
    """A secret to create exists already, or an earlier version with the same `ClientRequestToken` has another value."""

    code = "secret_exists"


class WrongCursor(Invalid):
    """A `NextToken` that this server did not issue for this list."""

    code = "wrong_cursor"


class SecretState(Conflict):
    """The operation does not fit the state of the secret: scheduled for deletion, or not scheduled."""

    code = "secret_state"


def check_name(name: str) -> str:
    """Return the name of a secret in the AWS API, if it is valid. Raises Invalid otherwise."""
    if not _NAME.fullmatch(name):
        raise Invalid("`Name` must have 1 to 256 letters, digits and characters of /_+=.@-")
    return name


class ArnScope(NamedTuple):
    """The region and the account number that the server writes into ARNs of secrets."""

    region: str
    account: str

    @property
    def partition(self) -> str:
        """Return the partition of the region."""
        partitions = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
        return next((name for start, name in partitions.items() if self.region.startswith(start)), "aws")

    def make_arn(self, name: str) -> str:
        """Return the ARN of the secret `name`. Its suffix is computed from the name, so every server returns the same
        ARN.
        """
        suffix = base64.b32encode(sha256(b"ostiary arn " + name.encode()).digest())[:6].decode()
        return f"arn:{self.partition}:secretsmanager:{self.region}:{self.account}:secret:{name}-{suffix}"

    def read_id(self, secret_id: str) -> str:
        """Return the name of the secret that a `SecretId` identifies: a name, an ARN, or an ARN without its suffix.
        Raises Invalid if the ARN names another region or account, or the name is malformed.
        """
        match = _ARN.fullmatch(secret_id)
        if match is None:
            return check_name(secret_id)
        if match.groups()[:3] != (self.partition, self.region, self.account):
            raise Invalid(
                "the ARN names another region or account", hint=f"use region {self.region} and account {self.account}"
            )
        name = check_name(match[4])
        shortened = name[:-7]
        return shortened if len(name) > 7 and self.make_arn(shortened) == secret_id else name


class RotationRules(msgspec.Struct):
    """The schedule of a rotation, as the AWS API states it."""

    AutomaticallyAfterDays: int | None = None
    Duration: str | None = None
    ScheduleExpression: str | None = None


class PasswordOptions(msgspec.Struct, forbid_unknown_fields=True):
    """The options of the operation `GetRandomPassword` of the AWS API."""

    PasswordLength: int = 32
    ExcludeCharacters: Annotated[str, Meta(max_length=MAX_EXCLUDED)] = ""
    ExcludeNumbers: bool = False
    ExcludePunctuation: bool = False
    ExcludeUppercase: bool = False
    ExcludeLowercase: bool = False
    IncludeSpace: bool = False
    RequireEachIncludedType: bool = True


def read_rules(rules: RotationRules) -> Schedule:
    """Return the schedule of a rotation. Raises Invalid unless the rules state exactly one valid schedule."""
    days, expression = rules.AutomaticallyAfterDays, rules.ScheduleExpression
    if (days is None) == (expression is None):
        raise Invalid("You must specify AutomaticallyAfterDays or ScheduleExpression in RotationRules, but not both.")
    if days is None:
        return parse_schedule(expression or "", rules.Duration or "")
    if not 1 <= days <= LONGEST_DAYS:
        raise Invalid(f"RotationRules.AutomaticallyAfterDays must be within 1-{LONGEST_DAYS}.")
    schedule = parse_schedule(f"rate({days} days)", rules.Duration or "")
    return schedule._replace(expression="")


def render_rules(seconds: int, expression: str, window: str) -> dict[str, Any]:
    """Return the member `RotationRules` of a response. `seconds`: the time between two rotations. `expression`,
    `window`: the members `ScheduleExpression` and `Duration` that an agent has set; empty: not set.
    """
    shown: dict[str, Any] = {"Duration": window} if window else {}
    if seconds % DAY_S == 0 and seconds <= LONGEST_DAYS * DAY_S:
        shown["AutomaticallyAfterDays"] = seconds // DAY_S
    elif not expression:
        units = ((DAY_S, "day"), (HOUR_S, "hour"), (_MINUTE_S, "minute"), (1, "second"))
        size, unit = next(one for one in units if seconds % one[0] == 0)
        count = seconds // size
        expression = f"rate({count} {unit}{'s' if count > 1 else ''})"
    return shown | ({"ScheduleExpression": expression} if expression else {})


def check_tags(tags: Sequence[tuple[str, str]], custom: Mapping[str, str]) -> dict[str, str]:
    """Return the custom metadata `custom` of a secret with the tags (pairs of key and value) added. Raises Invalid for
    a repeated key, a key that begins with `aws:`, or too many tags.
    """
    added = {f"{TAG}{key}": value for key, value in tags}
    if len(added) < len(tags):
        raise Invalid("`Tags` has a key more than once")
    for key, _ in tags:
        if key.lower().startswith("aws:"):
            raise Invalid(f"the key of a tag must not begin with aws:, as {key[:64]!a} does", hint="use another prefix")
    changed = {**custom, **added}
    if sum(key.startswith(TAG) for key in changed) > MAX_TAGS:
        raise Invalid(f"a secret may have at most {MAX_TAGS} tags", hint="remove a tag first")
    return changed


def keep_attributes(custom: Mapping[str, str], present: Mapping[str, str]) -> dict[str, str]:
    """Return the custom metadata that the Vault API sets, with the attributes of `present` that belong to the server:
    the time of a scheduled deletion, and the ids of versions. Raises Invalid if `custom` sets such an attribute to
    another value.
    """
    for key, value in custom.items():
        if key.startswith("aws:") and key != DESCRIPTION and not key.startswith(TAG) and present.get(key) != value:
            raise Invalid(
                f"`custom_metadata` must not set {key[:64]!a}, an attribute that only the API of AWS sets",
                hint=f"leave out the key; {DESCRIPTION} and {TAG}NAME can be set",
            )
    kept = {key: value for key, value in present.items() if key == DELETION or key.startswith(VERSION)}
    return {**custom, **kept}


def deletion_time(custom: Mapping[str, str]) -> int | None:
    """Return the time (microseconds) at which a secret will be deleted; None if it is not scheduled. Text that is not
    a time is ignored, since another API may have stored it.
    """
    text = custom.get(DELETION, "")
    return int(text) if _NUMBER.fullmatch(text) else None


def without_deletion(custom: Mapping[str, str]) -> dict[str, str]:
    """Return `custom` without the time of a scheduled deletion."""
    return {key: value for key, value in custom.items() if key != DELETION}


def token_version(key: str) -> int | None:
    """Return the number of the version whose `ClientRequestToken` is stored under the name `key` of custom metadata;
    None for any other name.
    """
    number = key.removeprefix(VERSION)
    return int(number) if number != key and _NUMBER.fullmatch(number) else None


def check_token(token: str | None, *, random: Callable[[int], bytes]) -> str:
    """Return the `ClientRequestToken` of a request, which becomes the id of the new version; if `token` is None, a
    random token. Raises Invalid for a token that does not have 32 to 64 characters, or has characters that are not
    printable.
    """
    if token is None:
        return random(16).hex()
    if not 32 <= len(token) <= 64:
        raise Invalid("ClientRequestToken must be 32-64 characters long.")
    if not token.isprintable():
        raise Invalid("`ClientRequestToken` has a character that is not printable")
    return token


def version_id(custom: Mapping[str, str], name: str, version: int) -> str:
    """Return the id of a version: the token of the request that stored the version. If the version was stored by
    another API, return an id that is computed from the name of the secret and the number of the version.
    """
    computed = sha256(f"version {version} of {name}".encode()).hexdigest()[:32]
    return custom.get(f"{VERSION}{version}", computed)


def matches_filters(
    filters: Iterable[tuple[str, Sequence[str]]], name: str, custom: Mapping[str, str], *, region: str
) -> bool:
    """Return whether a secret matches each filter, a key and its values: at least one value must match. A `!` at the
    beginning of a value negates the value.

    A name, a tag or a region matches if it begins with the value; case matters. No secret has an owning service. A
    description matches if, for each word of the value, it has a word that begins with this word; case does not matter.
    The filter `all` matches if one of the texts of the secret matches in this way.
    """
    tags = {one.removeprefix(TAG): value for one, value in custom.items() if one.startswith(TAG)}
    fields = {"name": [name], "tag-key": [*tags], "tag-value": [*tags.values()]}
    fields["description"] = [custom.get(DESCRIPTION, "")]
    fields["all"] = [text for texts in fields.values() for text in texts]
    fields["primary-region"], fields["owning-service"] = [region], []
    split: dict[str, list[str]] = {}  # the texts of a field by the key in `BY_WORDS`, since splitting them takes long

    def has(key: str, value: str) -> bool:
        if key not in BY_WORDS:
            return any(text.startswith(value) for text in fields[key])
        if key not in split:
            split[key] = [" ".join(["", *split_words(text)]) for text in fields[key]]
        words = split_words(value)
        return bool(words) and any(all(f" {word}" in text for word in words) for text in split[key])

    return all(
        any(has(key, value.removeprefix("!")) is not value.startswith("!") for value in values)
        for key, values in filters
    )


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case: `MyShop/db` has the words `my`, `shop` and `db`."""
    return [word for word in _BETWEEN_WORDS.split(_CASE_CHANGE.sub(" ", text).lower()) if word]


def seal_cursor(last: bytes, *, key: bytes, of: str, nonce: bytes) -> str:
    """Return the `NextToken` for the page after the item `last` of a list. `of`: the agent and the list. The item is
    encrypted, since the agent may not be permitted to see it. `nonce`: 12 random bytes.
    """
    return b64u(nonce + AESGCM(key).encrypt(nonce, last, of.encode()))


def open_cursor(unverified_token: str, *, key: bytes, of: str) -> bytes:
    """Return the item of a `NextToken` that this server issued for this agent and list. Raises WrongCursor for any
    other token.
    """
    try:
        sealed = unb64u(unverified_token[:MAX_CURSOR])
        return AESGCM(key).decrypt(sealed[:12], sealed[12:], of.encode())
    except (ValueError, Malformed, InvalidTag):
        raise WrongCursor("this server did not issue the `NextToken` for this list") from None


def read_value(text: str | None, binary: str | None) -> dict[str, Any]:
    """Return the value to store for a `SecretString` or a `SecretBinary`. Raises Conflict if both are None; Invalid if
    both are set, or `SecretBinary` is not base64.
    """
    if text is None and binary is None:
        raise Conflict("You must provide either SecretString or SecretBinary.")
    if text is not None and binary is not None:
        raise Invalid("You can't specify both a binary secret value and a string secret value in the same secret.")
    if binary is not None:
        try:
            base64.b64decode(binary, validate=True)
        except (binascii.Error, ValueError):
            raise Invalid("`SecretBinary` is not base64") from None
        return {"SecretBinary": binary}
    assert text is not None  # one of the two is given
    try:
        value = json.loads(text)
        is_plain = isinstance(value, dict) and render_value(msgspec.json.encode(value)) == {"SecretString": text}
    except (ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        is_plain = False  # the text is not JSON, or its members cannot be stored, such as one half of a surrogate pair
    return value if is_plain else {"SecretString": text}


def render_value(stored: bytes) -> dict[str, str]:
    """Return `SecretString` or `SecretBinary` for a stored value, given as JSON."""
    value = msgspec.json.decode(stored)
    if isinstance(value, dict) and len(value) == 1:
        for name in ("SecretString", "SecretBinary"):
            if isinstance(text := value.get(name), str):
                return {name: text}
    return {"SecretString": json.dumps(value)}


def make_password(options: PasswordOptions, *, random: Callable[[int], bytes]) -> str:
    """Return a random password with the options of `GetRandomPassword`. With `IncludeSpace`, the password can have
    spaces, but need not have one, even with `RequireEachIncludedType`. Raises Invalid if the length is out of range, or
    the options exclude all characters.
    """
    length, needs_all = options.PasswordLength, options.RequireEachIncludedType
    classes = [
        kept
        for letters, is_excluded in (
            (_LOWER, options.ExcludeLowercase),
            (_UPPER, options.ExcludeUppercase),
            (_DIGITS, options.ExcludeNumbers),
            (_PUNCTUATION, options.ExcludePunctuation),
        )
        if not is_excluded and (kept := "".join(one for one in letters if one not in options.ExcludeCharacters))
    ]
    has_space = options.IncludeSpace and " " not in options.ExcludeCharacters
    if not max(1, len(classes) if needs_all else 1) <= length <= LONGEST_PASSWORD:
        raise Invalid(f"`PasswordLength` must be at most {LONGEST_PASSWORD}, and at least 1 for each type of character")
    letters = "".join(classes) + (" " if has_space else "")
    if not letters:
        raise Invalid("the options exclude all characters, so none is left for the password")
    password = [one[_below(len(one), random)] for one in classes] if needs_all else []
    password += [letters[_below(len(letters), random)] for _ in range(length - len(password))]
    for last in range(length - 1, 0, -1):  # the order of the characters is random, too
        other = _below(last + 1, random)
        password[last], password[other] = password[other], password[last]
    return "".join(password)


def _below(limit: int, random: Callable[[int], bytes]) -> int:
    """Return a uniformly random number below a limit of at most 65536."""
    while (number := int.from_bytes(random(2))) >= 65536 - 65536 % limit:
        pass
    return number % limit
