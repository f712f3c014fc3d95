"""The folder of the Node.js clients."""

from __future__ import annotations

from pathlib import Path

NODE = Path(__file__).parents[1] / "node"
