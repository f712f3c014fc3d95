"""A detector's finding about one event."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MAX_SAYS = 300


class Noticed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A finding of a detector about one event. `points` (1 to 100) raise the risk score of the agent and of its task.
    `says` explains the finding to a person, and contains no value of an argument.
    """

    detector: Annotated[str, Meta(pattern=r"^[a-z][a-z_]{0,31}\Z")]
    points: Annotated[int, Meta(ge=1, le=100)]
    says: Annotated[str, Meta(min_length=1, max_length=MAX_SAYS)]
