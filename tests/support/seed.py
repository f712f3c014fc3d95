"""A function that returns the intent of a task in one short call."""

from __future__ import annotations

from collections.abc import Iterable

from ostiary.authorization.catalogue import Kind
from ostiary.provenance.intent import Endorsed, Intent


def seed(words: str, *, own: Iterable[str] = (), endorsed: Iterable[tuple[str, str, Iterable[str]]] = ()) -> Intent:
    return Intent(
        words=words,
        own={f"value{number}": value for number, value in enumerate(own)},
        endorsed=tuple(Endorsed(tool, value, tuple(map(Kind, kinds))) for tool, value, kinds in endorsed),
    )
