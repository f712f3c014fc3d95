"""Rotation of stored values: a member of a secret gets a new value on a schedule, by a signed call of its service.

    rotate    POST {"type": "secret.rotate", "data": {"path", "member", "value"}}: the service accepts the new value too
    retire    POST {"type": "secret.retire", "data": {"path", "member"}}: it accepts the new value alone

Between both calls lies the grace, in which both values work. Calls are signed as in Standard Webhooks 1.0.0; a repeated
call has the same id and the same value.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from ostiary.protocol.errors import Invalid, Malformed
from ostiaryd.secrets.model.request import SECOND, check_path, split_path

MOUNT = "secret"
"""The key-value store whose secrets can be rotated: it keeps the previous version."""
MAX_ROTATIONS = 10_000
SHORTEST_PERIOD_S, LONGEST_PERIOD_S = 60, 10 * 365 * 86_400
KEY_BYTES = 32
MAX_MEMBER = 128
ROTATE, RETIRE = "secret.rotate", "secret.retire"


class RotationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The rotation of a member of a secret. `period` and `grace` in seconds."""

    member: str
    url: str
    period: int
    grace: int


def check_config(path: str, config: RotationConfig) -> RotationConfig:
    """Return the configuration of a rotation, whose URL the fetcher checks. Raises Invalid, Malformed."""
    mount, rest = split_path(check_path(path))
    if mount != MOUNT or not rest or rest.endswith("/"):
        raise Invalid(f"the path of a rotated secret begins with {MOUNT}/", hint="such as secret/app/db")
    if not 0 < len(config.member) <= MAX_MEMBER or not config.member.isprintable():
        raise Invalid(f"`member` has 1 to {MAX_MEMBER} printable characters")
    if not SHORTEST_PERIOD_S <= config.period <= LONGEST_PERIOD_S:
        raise Invalid(f"`period` must be {SHORTEST_PERIOD_S} to {LONGEST_PERIOD_S} seconds")
    if not 0 <= config.grace < config.period:
        raise Invalid("`grace` must be at least 0 seconds and less than `period`")
    return config


def make_value(random: Callable[[int], bytes]) -> str:
    """Return a new value of 256 random bits, in letters, digits, hyphens and underscores."""
    return base64.urlsafe_b64encode(random(32)).decode().rstrip("=")


def render_key(key: bytes) -> str:
    """Return a signing key in the form of Standard Webhooks."""
    return "whsec_" + base64.b64encode(key).decode()


def render_call(kind: str, data: dict[str, Any], *, id: str, now: int, key: bytes) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a signed call; `now` in microseconds."""
    at = now // SECOND
    body = msgspec.json.encode({"type": kind, "timestamp": datetime.fromtimestamp(at, UTC).isoformat(), "data": data})
    signed = b".".join((id.encode(), str(at).encode(), body))
    signature = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return body, {"webhook-id": id, "webhook-timestamp": str(at), "webhook-signature": f"v1,{signature}"}


def replace_member(value: object, member: str, new: str) -> dict[str, Any]:
    """Return a value in which one member is replaced. Raises Malformed if the value is not an object."""
    if not isinstance(value, dict):
        raise Malformed("the secret is no JSON object")
    return {**value, member: new}
