from __future__ import annotations

from tests.support.guard_fixtures import feeder, guard

__all__ = ["feeder", "guard"]
