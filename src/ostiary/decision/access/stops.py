"""Stops of the kill switch, as guards know them: pairs such as `("model", "m-1")` or `("everything", "")`.

A stop applies to a token if the token contains the stopped name: as its task, owner, segment or model, as one of these
in a link of its chain, as its person, or as its audience.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from ostiary.authorization.claims import AccessClaims

What: TypeAlias = Literal["task", "owner", "resource", "segment", "model", "everything"]
Named: TypeAlias = tuple[str, str]


def names_of(claims: AccessClaims) -> frozenset[Named]:
    """Return the (kind, name) pairs, such as `("model", "m-1")`, by which the kill switch can stop the token."""
    links = [(claims.task, claims.owner, claims.segment, claims.model)]
    links += [(link.task, link.owner, link.segment, link.model) for link in claims.chain]
    names = [("everything", ""), ("resource", claims.aud), ("owner", claims.sub)]
    for link in links:
        names += [pair for pair in zip(("task", "owner", "segment", "model"), link, strict=True) if pair[1]]
    return frozenset(names)


def format_stops(stops: Iterable[Named]) -> str:
    """Return the stops as text for a message."""
    return ", ".join(sorted(f"{kind} {value}".rstrip() for kind, value in stops))[:200]
