"""The mark of tests that need the built console, and a person who opens the console in Chromium."""

from __future__ import annotations

from importlib.resources import files

import pytest

from harness.chromium import enter_console

__all__ = ["enter_console", "needs_console"]

needs_console = pytest.mark.skipif(
    not (files("ostiaryd.console") / "dist/index.html").is_file(), reason="the console is not built: make console"
)
