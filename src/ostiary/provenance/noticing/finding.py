"""A detector's finding about one event."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MAX_SAYS = 300


class Noticed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`points` (1 to 100) raise the risk of the agent and of its task; `says` explains it to a person, with no value of
    an argument in it.
    """

    detector: Annotated[str, Meta(pattern=r"^[a-z][a-z_]{0,31}\Z")]
    points: Annotated[int, Meta(ge=1, le=100)]
    says: Annotated[str, Meta(min_length=1, max_length=MAX_SAYS)]
