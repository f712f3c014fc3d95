"""The page on detectors names each of them with the points that it gives."""

from __future__ import annotations

import inspect
import re

from benchmarks.fleet.attacks import ATTACKS
from ostiaryd.signals.model.issuers import _IF
from ostiaryd.watch import model
from ostiaryd.watch.flows.certificates import POINTS
from ostiaryd.watch.model import BY_SERVER, NEGLECTED_CERTIFICATE, SIGNAL, describe_detector
from ostiaryd.watch.model.detector import detectors
from tests.support.sources import ROOT, files

PAGE = (ROOT / "docs" / "reference" / "detectors.md").read_text("utf-8")
ELSEWHERE = {"flood": "../how-to/telemetry.md", "threat_list": "../how-to/threat-lists.md"}


def test_every_detector_is_on_the_page() -> None:
    named = set(re.findall(r"^\| `([a-z_]+)` \| [^|]+ \| [0-9]", PAGE, re.MULTILINE))
    assert named | ELSEWHERE.keys() == detectors().keys() | BY_SERVER.keys()
    assert all(f"({page})" in PAGE for page in ELSEWHERE.values())


def test_the_points_are_those_in_the_source_of_each_detector() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| [^|]+ \| ([0-9, to]+) \|", PAGE, re.MULTILINE))
    by_signals = sorted({points for _, cases in _IF.values() for _, points in cases.values() if points})
    assert rows.pop(NEGLECTED_CERTIFICATE) == str(POINTS)
    assert rows.pop(SIGNAL) == ", ".join(map(str, by_signals))
    for name, points in rows.items():
        source = inspect.getsource(detectors()[name])  # type: ignore[arg-type]
        for one in re.findall(r"[0-9]+", points):
            assert re.search(rf"\b{one}\b", source), f"{name} gives {one} points"


def test_each_detector_of_the_server_has_a_description() -> None:
    sources = (ROOT / name for name in files() if name.startswith("src/ostiaryd/"))
    used = {name for source in sources for name in re.findall(r"\bNoticed\(detector=([A-Z_]+)\b", source.read_text())}
    assert {getattr(model, name) for name in used} == BY_SERVER.keys()
    assert describe_detector(SIGNAL) == BY_SERVER[SIGNAL]
    assert describe_detector("purpose_drift") == "A guard made the observation before the call ran."


def test_the_tables_of_measured_attacks_list_all_attacks_of_the_fleet() -> None:
    figures = re.findall(r"^\| ([a-z]+) \| \d of \d \|", PAGE, re.MULTILINE)
    described = re.findall(r"^\| `([a-z]+)` \| [^|]+ \|$", PAGE.partition("| kind | behaviour |")[2], re.MULTILINE)
    assert figures == described == list(ATTACKS)
