"""The page on detectors names each of them with the points that it gives."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from ostiaryd.watch.model.detector import detectors

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reference" / "detectors.md").read_text("utf-8")
ELSEWHERE = {"flood": "../how-to/telemetry.md", "threat_list": "../how-to/threat-lists.md"}


def test_every_detector_is_on_the_page() -> None:
    named = set(re.findall(r"^\| `([a-z_]+)` \| [^|]+ \| [0-9]", PAGE, re.MULTILINE))
    assert named | ELSEWHERE.keys() == detectors().keys()
    assert all(f"({page})" in PAGE for page in ELSEWHERE.values())


def test_the_points_are_those_that_a_finding_has() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| [^|]+ \| ([0-9, to]+) \|", PAGE, re.MULTILINE)
    for name, points in rows:
        source = inspect.getsource(detectors()[name])  # type: ignore[arg-type]
        for one in re.findall(r"[0-9]+", points):
            assert re.search(rf"\b{one}\b", source), f"{name} gives {one} points"
