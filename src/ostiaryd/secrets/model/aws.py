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
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ostiary.protocol.errors import Conflict, Invalid, Malformed
from ostiary.protocol.jose import b64u, unb64u

DESCRIPTION, DELETION, TAG, VERSION = "aws:description", "aws:deletion", "aws:tag:", "aws:version:"
ACCOUNT = "000000000000"
SHORTEST_WINDOW, DEFAULT_WINDOW, LONGEST_WINDOW = 7, 30, 30
DAY = 86_400_000_000
MAX_DESCRIPTION = 512
MAX_TAGS = 20
LONGEST_PASSWORD = 4096
FILTERS = ("all", "description", "name", "tag-key", "tag-value")
MAX_FILTER_WORDS = 16
"""Maximum number of words in one value of a filter."""
MAX_CURSOR = 4096
_NAME = re.compile(r"[A-Za-z0-9/_+=.@-]{1,256}")
_NUMBER = re.compile(r"[0-9]{1,16}")
_TOKEN = re.compile(r"[A-Za-z0-9-]{32,64}")
_ARN = re.compile(r"arn:aws:secretsmanager:([a-z0-9-]+):([0-9]{12}):secret:(.{1,263})")
_BETWEEN_WORDS = re.compile(r"[\s/+_=.@-]+")
_CASE_CHANGE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_UPPER, _LOWER, _DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "0123456789"
_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


class SecretExists(Conflict):
    """A secret with that name exists, or another value with that token."""

    code = "secret_exists"


class WrongCursor(Invalid):
    """A `NextToken` that this server did not issue for this list."""

    code = "wrong_cursor"


class SecretState(Conflict):
    """The operation does not fit the state of the secret: scheduled for deletion, or not scheduled."""

    code = "secret_state"


def check_name(name: str) -> str:
    """Return a valid name of a secret. Raises Invalid."""
    if not _NAME.fullmatch(name):
        raise Invalid("`Name` must have 1 to 256 letters, digits and characters of /_+=.@-")
    return name


def make_arn(name: str, *, region: str) -> str:
    """Return the ARN of a name. Its suffix is computed from the name, so every server returns the same ARN."""
    suffix = base64.b32encode(sha256(b"ostiary arn " + name.encode()).digest())[:6].decode()
    return f"arn:aws:secretsmanager:{region}:{ACCOUNT}:secret:{name}-{suffix}"


def read_id(secret_id: str, *, region: str) -> str:
    """Return the name of the secret that a `SecretId` identifies: a name, an ARN, or an ARN without its suffix. Raises
    Invalid.
    """
    match = _ARN.fullmatch(secret_id)
    if match is None:
        return check_name(secret_id)
    if match[1] != region or match[2] != ACCOUNT:
        raise Invalid("the ARN names another region or account")
    name = check_name(match[3])
    shortened = name[:-7]
    return shortened if len(name) > 7 and make_arn(shortened, region=region) == secret_id else name


def deletion_time(custom: Mapping[str, str]) -> int | None:
    """Return the time at which a secret will be deleted; None if it is not scheduled. Text that is not a time
    is ignored, since another API may have stored it.
    """
    text = custom.get(DELETION, "")
    return int(text) if _NUMBER.fullmatch(text) else None


def token_version(key: str) -> int | None:
    """Return the number of the version whose token is stored under the name `key` of custom metadata; None for any
    other name.
    """
    number = key.removeprefix(VERSION)
    return int(number) if number != key and _NUMBER.fullmatch(number) else None


def check_token(token: str | None, *, random: Callable[[int], bytes]) -> str:
    """Return the token of a request, which becomes the id of the new version. If the request has no token, return a
    random one. Raises Invalid.
    """
    if token is None:
        return random(16).hex()
    if not _TOKEN.fullmatch(token):
        raise Invalid("`ClientRequestToken` must have 32 to 64 letters, digits and hyphens")
    return token


def version_id(custom: Mapping[str, str], name: str, version: int) -> str:
    """Return the id of a version: the token of the request that stored the version. If the version was stored by
    another API, return an id that is computed from name and number.
    """
    computed = sha256(f"version {version} of {name}".encode()).hexdigest()[:32]
    return custom.get(f"{VERSION}{version}", computed)


def matches_filter(key: str, values: Sequence[str], name: str, custom: Mapping[str, str]) -> bool:
    """Return whether a secret matches at least one value of a filter; a `!` at the beginning of a value negates the
    value.

    A name or a tag matches if it begins with the value; case matters. A description matches if, for each word of the
    value, it has a word that begins with this word; case does not matter. The filter `all` matches if one of the texts
    of the secret matches in this way.
    """
    tags = {one.removeprefix(TAG): value for one, value in custom.items() if one.startswith(TAG)}
    fields = {"name": [name], "tag-key": [*tags], "tag-value": [*tags.values()]}
    fields["description"] = [custom.get(DESCRIPTION, "")]
    fields["all"] = [text for texts in fields.values() for text in texts]

    by_words = key in ("all", "description")
    texts = [" ".join(["", *split_words(text)]) for text in fields[key]] if by_words else fields[key]

    def has(value: str) -> bool:
        if by_words:
            words = split_words(value)
            return bool(words) and any(all(f" {word}" in text for word in words) for text in texts)
        return any(text.startswith(value) for text in texts)

    return any(has(value.removeprefix("!")) is not value.startswith("!") for value in values)


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case: `MyShop/db` has the words `my`, `shop` and `db`."""
    return [word for word in _BETWEEN_WORDS.split(_CASE_CHANGE.sub(" ", text).lower()) if word]


def seal_cursor(last: bytes, *, key: bytes, of: str, nonce: bytes) -> str:
    """Return the `NextToken` for the page after the item `last` of a list. `of`: the agent and the list. The item is
    encrypted, since the agent may not be permitted to see it. `nonce`: 12 random bytes.
    """
    return b64u(nonce + AESGCM(key).encrypt(nonce, last, of.encode()))


def open_cursor(unverified_token: str, *, key: bytes, of: str) -> bytes:
    """Return the item of a `NextToken` that this server issued for this agent and list. Raises WrongCursor."""
    try:
        sealed = unb64u(unverified_token[:MAX_CURSOR])
        return AESGCM(key).decrypt(sealed[:12], sealed[12:], of.encode())
    except (ValueError, Malformed, InvalidTag):
        raise WrongCursor("this server did not issue the `NextToken` for this list") from None


def read_value(text: str | None, binary: str | None) -> dict[str, Any]:
    """Return the value to store for a `SecretString` or a `SecretBinary`. Raises Invalid; Conflict if both are None."""
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


def make_password(body: Mapping[str, Any], *, random: Callable[[int], bytes]) -> str:
    """Return a random password with the options of `GetRandomPassword`. Raises Invalid."""
    length = body.get("PasswordLength", 32)
    classes = [
        letters
        for letters, option in (
            (_LOWER, "ExcludeLowercase"),
            (_UPPER, "ExcludeUppercase"),
            (_DIGITS, "ExcludeNumbers"),
            (_PUNCTUATION, "ExcludePunctuation"),
        )
        if not body.get(option)
    ]
    if body.get("IncludeSpace"):
        classes.append(" ")
    excluded = str(body.get("ExcludeCharacters", ""))
    classes = [kept for letters in classes if (kept := "".join(one for one in letters if one not in excluded))]
    needs_all = body.get("RequireEachIncludedType", True)
    if type(length) is not int or not max(1, len(classes) if needs_all else 1) <= length <= LONGEST_PASSWORD:
        raise Invalid(f"`PasswordLength` must be at most {LONGEST_PASSWORD}, and at least 1 for each type of character")
    if not classes:
        raise Invalid("no character is left for the password")
    letters = "".join(classes)
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
