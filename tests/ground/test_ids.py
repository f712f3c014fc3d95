"""Ids and secrets."""

from __future__ import annotations

from ostiary.protocol.jose import b64u
from ostiaryd.ground.process.ids import SECRET_BYTES, new_secret


def test_a_secret_does_not_begin_with_a_hyphen() -> None:
    for first in range(256):
        drawn = iter((bytes([first]) * SECRET_BYTES, bytes(SECRET_BYTES)))
        secret = new_secret(lambda count, drawn=drawn: next(drawn)[:count])  # type: ignore[misc]
        is_option = b64u(bytes([first])).startswith("-")
        assert secret == (bytes(SECRET_BYTES) if is_option else bytes([first]) * SECRET_BYTES)
        assert not b64u(secret).startswith("-")
