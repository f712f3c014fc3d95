from __future__ import annotations

from tests.feed.conftest import house
from tests.guard.conftest import feeder, guard

__all__ = ["feeder", "guard", "house"]
