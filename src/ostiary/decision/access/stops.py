"""What the kill switch has stopped, as guards know it: pairs such as `("model", "m-1")` or `("everything", "")`.

A token is stopped by what it names: its task, owner, segment and model, those of every link of its chain, the person
for whom it is, and its audience.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from ostiary.authorization.claims import AccessClaims

What: TypeAlias = Literal["task", "owner", "resource", "segment", "model", "everything"]
Named: TypeAlias = tuple[str, str]


def names_of(claims: AccessClaims) -> frozenset[Named]:
    """By what that token could be stopped."""
    links = [(claims.task, claims.owner, claims.segment, claims.model)]
    links += [(link.task, link.owner, link.segment, link.model) for link in claims.chain]
    found = [("everything", ""), ("resource", claims.aud), ("owner", claims.sub)]
    for link in links:
        found += [pair for pair in zip(("task", "owner", "segment", "model"), link, strict=True) if pair[1]]
    return frozenset(found)


def spelled(stops: Iterable[Named]) -> str:
    """For a message: what is stopped."""
    return ", ".join(sorted(f"{what} {value}".rstrip() for what, value in stops))[:200]
