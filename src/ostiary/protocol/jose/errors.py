"""Refusals of keys and tokens."""

from __future__ import annotations

from ostiary.protocol.errors import Invalid, Unauthenticated


class InvalidToken(Unauthenticated):
    """A token or a signature that is not valid."""

    code = "invalid_token"


class InvalidKey(Invalid):
    """A JWK that is malformed or not supported."""

    code = "invalid_key"
