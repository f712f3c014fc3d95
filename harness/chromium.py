"""Headless Chromium, which `chromium_driver.py` controls with the Python of `.browser`, and a person who uses the
console.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".browser/bin/python"
EXECUTABLE = Path("/usr/bin/chromium")
SHELL = Path("/usr/bin/chromium-headless-shell")
"""Chromium without windows and notifications, which takes two fifths of the processor time."""


class Chromium:
    """A browser. The methods are those of `Driver` in `harness/chromium_driver.py`: `chromium.goto(url)`."""

    def __init__(self, *, shows_notifications: bool = False) -> None:
        """Start the shell of Chromium; for notifications, or without the shell, start Chromium."""
        program = SHELL if SHELL.exists() and not shows_notifications else EXECUTABLE
        command = [PYTHON, ROOT / "harness/chromium_driver.py", program]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
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
        self._process.communicate(timeout=PATIENCE_S)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the browser ended"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]


def enter_console(server: ServerFixture, chromium: Chromium, name: str, role: str) -> str:
    """Open a window in which a new person with that role has signed in by passkey and sees the console; the URL of the
    server's pages.
    """
    server.api("POST", "/persons", {"name": name})
    server.api("POST", "/roles", {"subject": name, "role": role})
    chromium.open_window()
    chromium.add_authenticator()
    chromium.goto(server.api("POST", f"/persons/{name}/invite", {})["url"])
    chromium.click("text=Create a passkey")
    site = str(chromium.wait_for_url("**/account")).removesuffix("/account")
    chromium.click("text=Sign out")
    chromium.wait_for_url("**/login*")
    chromium.goto(f"{site}/console")
    chromium.click("text=Sign in with a passkey")
    chromium.wait_for_url("**/console")
    return site
