"""The table of requirements on an OpenID Provider names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "openid-provider.md"
SPECIFICATIONS = {
    "OpenID Connect Core 1.0",
    "Discovery 1.0",
    "RP-Initiated Logout 1.0",
    "Back-Channel Logout 1.0",
    "Dynamic client registration (RFC 7591)",
    "Management of registrations (RFC 7592)",
    "Authorization server metadata (RFC 8414)",
    "Device authorization grant (RFC 8628)",
    "Pushed authorization requests (RFC 9126)",
    "Issuer identification (RFC 9207)",
    "Step-up authentication (RFC 9470)",
    "Security best current practice (RFC 9700)",
    "Client ID metadata documents (draft 01)",
    "Attacks",
}


def test_every_requirement_names_a_test_that_exists() -> None:
    page = PAGE.read_text("utf-8")
    files = dict(re.findall(r"^\| `(\w+):` \| `(tests/[\w/]+\.py)` \|$", page, re.MULTILINE))
    rows = re.findall(r"^\| [\d., ]+ \| .+ \| (.+) \|$", page, re.MULTILINE)
    assert len(rows) > 115
    for row in rows:
        tests = re.findall(r"`(?:(\w+):|(tests/[\w/]+\.py)::)?(test_\w+)`", row)
        assert tests, row
        for short, path, name in tests:
            file = path or (files[short] if short else "tests/tokens/test_code_flow.py")
            assert f"def {name}(" in (ROOT / file).read_text("utf-8"), name


def test_the_table_has_every_specification() -> None:
    assert set(re.findall(r"^## (.+)$", PAGE.read_text("utf-8"), re.MULTILINE)) == SPECIFICATIONS
