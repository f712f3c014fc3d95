"""The table of requirements on an OpenID Provider names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "openid-provider.md"
FILES = {
    "": "tests/tokens/test_code_flow.py",
    "openid": "tests/tokens/test_openid.py",
    "clients": "tests/conformance/test_code_flow_clients.py",
    "metadata": "tests/conformance/test_metadata.py",
}


def test_every_requirement_names_a_test_that_exists() -> None:
    rows = re.findall(r"^\| [\d., ]+ \| .+ \| (.+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    named = [re.findall(r"`(?:(\w+):|(tests/[\w/]+\.py)::)?(test_\w+)`", row) for row in rows]
    assert len(rows) > 35
    for row, tests in zip(rows, named, strict=True):
        assert tests or row == "the two tests above", row
        for short, path, name in tests:
            assert f"def {name}(" in (ROOT / (path or FILES[short])).read_text("utf-8"), name
