"""The event loops that the server may run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])


NewLoop = Callable[[], asyncio.AbstractEventLoop]
