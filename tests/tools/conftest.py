from __future__ import annotations

from tests.support.guard_fixtures import feeder, guard
from tests.support.servers import live_server

__all__ = ["feeder", "guard", "live_server"]
