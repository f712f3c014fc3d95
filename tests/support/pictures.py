"""Pictures and checks of a page in Chromium: light, dark and at the width of a phone.

`make pages` writes the pictures to `build/pages`. The checks run in every test of pages: axe-core finds nothing, the
page does not scroll sideways, and no script, style or image breaks the policy of the page.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from tests.support.chromium import Chromium
from tests.support.node import NODE

FOLDER = os.environ.get("OSTIARY_PICTURES")
LOOKS = (("light", False, 1280), ("dark", True, 1000), ("phone", False, 360))
"""Name of the look, whether it is dark, and the width of the window."""


_FAULTS = """[
    ...[...document.querySelectorAll('.field > label + :is(input, select)')]
        .filter((one) => one.getBoundingClientRect().top - one.previousSibling.getBoundingClientRect().bottom > 24)
        .map((one) => `far from its label: ${one.outerHTML}`),
    ...[...document.querySelectorAll('.table [role=cell] a')]
        .filter((one) => one.textContent.length <= (innerWidth < 500 ? 16 : 40))
        .filter((one) => one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight)
        .map((one) => `a short name is cut: ${one.textContent}`),
]"""
"""Script that lists faults of the looks: a field far from its label, a name that a table cuts although it has 40
characters at most (on a phone: 16)."""


@lru_cache(1)
def _axe() -> str:
    return (NODE / "node_modules/axe-core/axe.min.js").read_text()


def examine_page(chromium: Chromium, name: str) -> None:
    """Check the present page in each look, and take its pictures where a folder is named."""
    for look, dark, width in LOOKS:
        chromium.set_look(dark=dark, width=width)
        if FOLDER:
            Path(FOLDER).mkdir(parents=True, exist_ok=True)
            chromium.screenshot(str(Path(FOLDER) / f"{name}-{look}.png"))
        faults = chromium.find_faults(_axe()) + chromium.evaluate(_FAULTS)
        assert not faults, (name, look, faults)
        assert not chromium.is_too_wide(), (name, look)
    chromium.set_look(dark=False, width=1000)
    assert chromium.get_problems() == [], name
