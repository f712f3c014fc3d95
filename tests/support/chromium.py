"""The fixture `chromium` of a session, and a person with a passkey.

Without Chromium the tests that ask for the fixture are skipped, with the reason; `make test` installs it where it may.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.chromium import EXECUTABLE, PYTHON, Chromium
from harness.live_server import ServerFixture

__all__ = ["Chromium", "browser", "chromium", "set_up_person"]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """The browser of this session. Begin with `open_window`."""
    with browser() as started:
        yield started


@contextmanager
def browser(*, shows_notifications: bool = False) -> Iterator[Chromium]:
    """Start a browser, and end it after its use."""
    if not EXECUTABLE.exists():
        pytest.skip("Chromium is not installed, and only root may install it: `make browser` says more")
    assert PYTHON.exists(), "make browser"
    started = Chromium(shows_notifications=shows_notifications)
    yield started
    started.close()


def set_up_person(live_server: ServerFixture, chromium: Chromium, name: str) -> str:
    """Open a window in which a new person has a passkey and is signed out; the name of the person."""
    live_server.api("POST", "/persons", {"name": name})
    live_server.api("POST", "/roles", {"subject": name, "role": "viewer"})
    chromium.open_window()
    chromium.add_authenticator()
    chromium.goto(live_server.api("POST", f"/persons/{name}/invite", {})["url"])
    chromium.click("text=Create a passkey")
    chromium.wait_for_url("**/account")
    chromium.click("text=Sign out")
    chromium.wait_for_url("**/login*")
    return name
