"""Headless Chromium for tests: the process of `tests/browser/driver.py`, and the fixture `chromium` of a session.

Without Chromium the tests that ask for the fixture are skipped, with the reason; `make test` installs it where it may.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.live_server import ServerFixture

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".browser/bin/python"
EXECUTABLE = Path("/usr/bin/chromium")


class Chromium:
    """A browser. The methods are those of `Driver` in `tests/browser/driver.py`: `chromium.goto(url)`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [PYTHON, ROOT / "tests/browser/driver.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.version = self._answer()

    def __getattr__(self, method: str) -> Any:
        def call(*arguments: object, **named: object) -> Any:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps([method, arguments, named]) + "\n")
            self._process.stdin.flush()
            return self._answer()

        return call

    def close(self) -> None:
        """End the browser."""
        self._process.communicate(timeout=60)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the browser ended"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """The browser of this session. Begin with `open_window`."""
    if not EXECUTABLE.exists():
        pytest.skip("Chromium is not installed, and only root may install it: `make browser` says more")
    assert PYTHON.exists(), "make browser"
    browser = Chromium()
    yield browser
    browser.close()


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
