"""The table of bad input to the certificate authority names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "certificate-refusals.md"
SUBJECTS = {"Certificate signing requests", "ACME", "Client certificates", "SPIFFE", "Status", "Clocks"}


def test_every_kind_of_bad_input_names_a_test_that_exists() -> None:
    page = PAGE.read_text("utf-8")
    files = dict(re.findall(r"^\| `(\w+):` \| `(tests/[\w/]+\.py)` \|$", page, re.MULTILINE))
    rows = re.findall(r"^\| .+ \| .+ \| (`.*test_.+) \|$", page, re.MULTILINE)
    assert len(rows) >= 50
    used = set[str]()
    for row in rows:
        for cell in row.split(", "):
            [(short, name)] = re.findall(r"^`(?:(\w+):)?(test_\w+)`$", cell)
            used.add(short)
            file = files[short] if short else "tests/certs/test_requests.py"
            assert f"def {name}(" in (ROOT / file).read_text("utf-8"), name
    assert used == {"", *files}


def test_the_table_of_bad_input_has_every_subject() -> None:
    assert set(re.findall(r"^## (.+)$", PAGE.read_text("utf-8"), re.MULTILINE)) == SUBJECTS
