"""The build hook of the wheel and the source distribution: both carry the built console, so that `pip install` needs no
Node.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ConsoleHook(BuildHookInterface[Any]):
    """Builds the console from its lock file, except for an editable install and in a source distribution."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Run `npm ci` and the build. Raises CalledProcessError, and FileNotFoundError where npm is not installed."""
        root = Path(self.root)
        if version == "editable" or (root / "PKG-INFO").exists():
            return
        subprocess.run(["npm", "--prefix", root / "console", "ci", "--ignore-scripts"], check=True)
        subprocess.run(["npm", "--prefix", root / "console", "run", "build"], check=True)
