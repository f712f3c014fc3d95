from __future__ import annotations

from tests.support.servers import live_server

__all__ = ["live_server"]
