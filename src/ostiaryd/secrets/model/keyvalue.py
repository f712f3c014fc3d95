"""Key-value secrets: versions, check-and-set, and the metadata of a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec
from msgspec.structs import replace

from ostiary.protocol.errors import Invalid, Refused
from ostiaryd.secrets.model.request import MAX_NUMBER

DEFAULT_VERSIONS = 10
MAX_VERSIONS = 1000
MAX_VALUE = 64 << 10
"""Maximum number of bytes of a value as JSON, also of the result of a merge patch."""
MAX_CUSTOM = 64
MAX_CUSTOM_KEY, MAX_CUSTOM_VALUE = 128, 512
ATTRIBUTE = "aws:"
"""The beginning of the keys of custom metadata that are attributes of the API of AWS, with limits of their own."""
MAX_ATTRIBUTES, MAX_ATTRIBUTE_KEY, MAX_ATTRIBUTE_VALUE = 100, 520, 8192
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Characters that no attribute has: control characters that are not white space, and halves of surrogate pairs."""
CURRENT, PREVIOUS = "AWSCURRENT", "AWSPREVIOUS"
"""The staging labels of the current version and of the version that was current before it."""
MAX_STAGES = 20
"""Maximum number of staging labels of a secret."""


class StagesExceeded(Refused):
    """A secret would have more than 20 staging labels."""

    code = "too_many_stages"


class MountConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The default settings for the secrets of a key-value mount. `max_versions`: versions to keep; 0 stands for the
    default of the server. `cas_required`: each write must state the current version. `delete_after`: microseconds after
    which a version counts as deleted; 0: never.
    """

    max_versions: int = 0
    cas_required: bool = False
    delete_after: int = 0


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret without its values. `current_version`: 0 until a value is stored.

    `reader`: the id of the agent or person that last read a value, `read_at` the approximate time of that read.
    `is_canary`: no honest agent reads the secret, so an agent that does is quarantined. `delete_after`: as in
    `MountConfig`. Times are microseconds since the epoch.
    """

    current_version: int = 0
    oldest_version: int = 0
    max_versions: int = 0
    cas_required: bool = False
    delete_after: int = 0
    custom: dict[str, str] = {}
    created_at: int
    updated_at: int
    is_canary: bool = False
    read_at: int | None = None
    reader: str | None = None
    stages: dict[str, int] = {}
    """The number of the version of each staging label except `CURRENT`; 0: no version has the label. Use
    `stages_of`.
    """


class LastSecretUse(msgspec.Struct, frozen=True, kw_only=True):
    """The last read and the last change of a secret. `rotated_at`: the time at which the current version was stored.
    Times are microseconds since the epoch.
    """

    mount: str
    path: str
    version: int
    rotated_at: int
    read_at: int | None
    reader: str | None
    is_canary: bool


class UseFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A search for secrets below `mount` and `folder` that meet every stated condition: never read, last read by
    `reader`, not changed since a time in microseconds.
    """

    mount: str
    folder: str = ""
    is_unread: bool = False
    reader: str = ""
    rotated_before: int = MAX_NUMBER


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a secret. `deleted_at`: the time from which the version counts as deleted, which may be in the
    future. A destroyed version has no value.
    """

    version: int
    wrapped_key: bytes | None
    sealed: bytes | None
    created_at: int
    deleted_at: int | None

    def __repr__(self) -> str:
        """Return only the number: the value is secret."""
        return f"Version({self.version})"

    @property
    def is_destroyed(self) -> bool:
        """Return whether the value of the version was destroyed for good, so that it cannot be restored."""
        return self.sealed is None

    def is_deleted(self, now: int) -> bool:
        """Return whether the version counts as deleted at `now` (microseconds): the time of its deletion has come."""
        return self.deleted_at is not None and self.deleted_at <= now


def kept_versions(secret: Secret, mount: MountConfig) -> int:
    """Return the maximum number of versions of a secret that the server keeps: the setting of the secret, else of the
    mount, else the default.
    """
    return secret.max_versions or mount.max_versions or DEFAULT_VERSIONS


def stages_of(secret: Secret) -> dict[str, int]:
    """Return the number of the version that has each staging label (such as `AWSCURRENT` in the AWS API), by label. If
    the record of a secret does not state which version is `PREVIOUS`, the version before the current version is.
    """
    before = secret.current_version - 1 if secret.current_version > secret.oldest_version else 0
    stages = {CURRENT: secret.current_version, PREVIOUS: before, **secret.stages}
    return {label: number for label, number in stages.items() if number}


def attach_stages(secret: Secret, number: int, labels: Iterable[str]) -> Secret:
    """Return the secret with the staging labels `labels` at the version `number`; other versions lose these labels.
    With the label `CURRENT`, the version becomes the current version, and the version that was current gets `PREVIOUS`.
    The first version of a secret becomes current in any case. Raises StagesExceeded for too many labels.
    """
    stages = {PREVIOUS: 0, **stages_of(secret), **dict.fromkeys(labels, number)}
    current = stages.pop(CURRENT, number)
    if current != secret.current_version:
        stages[PREVIOUS] = secret.current_version
    secret = replace(secret, current_version=current, stages=stages)
    if len(stages_of(secret)) > MAX_STAGES:
        raise StagesExceeded(f"a secret may have at most {MAX_STAGES} staging labels", hint="remove a label first")
    return secret


def detach_stage(secret: Secret, label: str) -> Secret:
    """Return the secret without a staging label. The caller has checked that `label` is not `CURRENT`, which a secret
    always has.
    """
    stages = {one: number for one, number in stages_of(secret).items() if one not in (CURRENT, label)}
    return replace(secret, stages={PREVIOUS: 0, **stages})


def drop_versions(secret: Secret, *, before: int) -> tuple[Secret, list[int]]:
    """Return the secret after the deletion of its versions with numbers below `before`. Versions with a staging label
    other than `PREVIOUS` are kept; return their numbers, sorted, too.
    """
    stages = stages_of(secret)
    kept = sorted({number for label, number in stages.items() if label != PREVIOUS and number < before})
    if stages.get(PREVIOUS, before) < before and stages[PREVIOUS] not in kept:
        secret = detach_stage(secret, PREVIOUS)
    oldest = kept[0] if kept else max(secret.oldest_version, before, 1)
    return replace(secret, oldest_version=oldest), kept


def deletion_time(secret: Secret, mount: MountConfig, *, now: int) -> int | None:
    """Return the time (microseconds) at which a version that is written now will count as deleted: after the shorter
    `delete_after` of the secret and of the mount; None: never.
    """
    after = min((one for one in (secret.delete_after, mount.delete_after) if one), default=0)
    return now + after if after else None


def check_cas(cas: int | None, *, current: int, is_required: bool) -> None:
    """Check that the current version has the number `cas`; 0: the secret has no version; None: any version. Raises
    Invalid for another current version, and for None if `is_required`.
    """
    if cas is None:
        if is_required:
            raise Invalid("check-and-set parameter required for this call", code="cas_required")
        return
    if cas != current:
        raise Invalid("check-and-set parameter did not match the current version", code="cas_mismatch")


def parse_number(value: int | str) -> int:
    """Return the number of a version in a request; 0 stands for the current version. Raises Invalid for a number out of
    range.
    """
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 16:
        value = int(value)
    if not isinstance(value, int) or not 0 <= value <= MAX_NUMBER:
        raise Invalid(f"the version must be a number from 0 to {MAX_NUMBER}")
    return value


def check_max_versions(count: int) -> int:
    """Return `count` if it is a valid number of versions to keep. Raises Invalid otherwise."""
    if not 0 <= count <= MAX_VERSIONS:
        raise Invalid(f"`max_versions` must be 0 to {MAX_VERSIONS}")
    return count


def check_custom(custom: Mapping[str, str]) -> dict[str, str]:
    """Return the custom metadata of a secret if they are valid: the keys of users, and the attributes that the AWS API
    stores there, such as tags. Raises Invalid for too many or too long keys and values, or control characters.
    """
    attributes = {key: value for key, value in custom.items() if key.startswith(ATTRIBUTE)}
    if len(custom) - len(attributes) > MAX_CUSTOM:
        raise Invalid(f"`custom_metadata` may have at most {MAX_CUSTOM} keys")
    if len(attributes) > MAX_ATTRIBUTES:
        raise Invalid(
            f"a secret may have at most {MAX_ATTRIBUTES} attributes of the API of AWS", hint="remove tags of the secret"
        )
    for key, value in attributes.items():
        if _CONTROL.search(key + value):
            raise Invalid("a tag or description contains a control character")
        if len(key.encode()) > MAX_ATTRIBUTE_KEY or len(value.encode()) > MAX_ATTRIBUTE_VALUE:
            raise Invalid(
                f"the attribute {key[:40]!a} of the API of AWS must have a key of at most {MAX_ATTRIBUTE_KEY} bytes,"
                f" and a value of at most {MAX_ATTRIBUTE_VALUE}"
            )
    for key, value in custom.items():
        if key in attributes:
            continue
        if not 0 < len(key.encode()) <= MAX_CUSTOM_KEY or len(value.encode()) > MAX_CUSTOM_VALUE:
            raise Invalid(
                f"the key {key[:40]!a} of `custom_metadata` must have 1 to {MAX_CUSTOM_KEY} bytes, and its value at"
                f" most {MAX_CUSTOM_VALUE}"
            )
        if not (key.isprintable() and value.isprintable()):
            raise Invalid(f"the key or the value of {key[:40]!a} in `custom_metadata` has an unprintable character")
    return dict(custom)


def names_below(value: Mapping[str, object], depth: int) -> dict[str, object]:
    """Return the names of the members of a value, each with the names of its own members, or with None if it has none
    or is at the last level. `depth`: the number of levels; 0: all.
    """
    return {
        name: names_below(below, depth - 1) if isinstance(below, dict) and below and depth != 1 else None
        for name, below in value.items()
    }


def merge_patch(target: object, patch: object) -> object:
    """Return the value that results from a JSON merge patch of `target` (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged
