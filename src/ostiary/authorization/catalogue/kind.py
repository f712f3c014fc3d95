"""The kinds of arguments: principal, account, address, object, amount, text and others."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Kind(StrEnum):
    """The kind of an argument, as the catalogue states it. The kind decides how the origin of the value is judged."""

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
    """outgoing text; the addresses and links in it are judged"""


RECIPIENTS = frozenset({Kind.PRINCIPAL, Kind.ACCOUNT, Kind.ADDRESS})
"""kinds that name a recipient of data or money"""
POINTS = RECIPIENTS | {Kind.OBJECT}
"""kinds that name recipients and objects"""
SIGNIFICANT = POINTS | {Kind.SECRET, Kind.AMOUNT}
"""kinds of recipients, objects, secrets and amounts"""
FIXED_TIME = "fixed-time"
"""Word of a catalogue for a time that the agent must not choose. Such a time is judged like a recipient or an
object.
"""
_FREE_WORDS = {"recipient": Kind.ADDRESS, "url": Kind.ADDRESS, "path": Kind.OBJECT, "command": Kind.TEXT}
"""Older words of catalogues for kinds of arguments, each with the kind that it now means."""
KINDS: Mapping[str, Kind] = MappingProxyType(
    {kind.value: kind for kind in Kind} | _FREE_WORDS | {FIXED_TIME: Kind.TIME}
)
"""words of a catalogue that mean a kind, each with this kind"""
