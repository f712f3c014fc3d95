from __future__ import annotations

from tests.support.api_fixtures import client

__all__ = ["client"]
