"""The page about curl: its commands run as they are written, and print what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.prepared import PreparedServer
from tests.docs.page_script import missing_in, run_script, script

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "curl.md"


@pytest.mark.slow
def test_a_token_and_a_decision_can_be_requested_with_only_curl_and_openssl(tmp_path: Path) -> None:
    text, wanted = script([PAGE.read_text("utf-8")])
    assert len(wanted) == 2
    with PreparedServer(tmp_path / "data") as server:
        credential = str(server.folder / "admin.json")
        said = run_script(text, tmp_path, OSTIARY_URL=server.url, OSTIARY_CREDENTIAL=credential)
    assert not missing_in(said, wanted), said
