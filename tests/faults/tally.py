"""The count of broken promises."""

from __future__ import annotations

from collections.abc import Callable

Tally = Callable[..., None]
