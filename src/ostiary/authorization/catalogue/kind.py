"""The kinds of arguments: recipient, path, amount, text and others."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Kind(StrEnum):
    """The kind of an argument, where the origin of its value matters: a closed list."""

    PRINCIPAL = "principal"
    """a user, a member or a customer"""
    ACCOUNT = "account"
    """the source or destination of money"""
    ADDRESS = "address"
    """a destination or source of data: mail address, telephone number, URL, channel"""
    OBJECT = "object"
    """the thing that the call is about: a file, a record, a booking"""
    SECRET = "secret"
    AMOUNT = "amount"
    TIME = "time"
    TEXT = "text"
    """outgoing text: the addresses and links in it count"""


FIXED_TIME = "fixed-time"
"""The catalogue's word for a time that the agent may not choose: judged like a recipient or an object."""
_FREE_WORDS = {"recipient": Kind.ADDRESS, "url": Kind.ADDRESS, "path": Kind.OBJECT, "command": Kind.TEXT}
"""Words that catalogues used before the list was closed."""
KINDS: Mapping[str, Kind] = MappingProxyType(
    {kind.value: kind for kind in Kind} | _FREE_WORDS | {FIXED_TIME: Kind.TIME}
)
"""each word of a catalogue that is a kind"""
