"""`ostiary watch` on a running server, and over recorded entries without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli import Commands, run
from harness.live_server import ServerFixture
from harness.patience import eventually
from harness.prepared import PreparedServer
from ostiary.protocol.canonical import encode
from ostiaryd.ledger.model import Entry, encode_entry, reason
from ostiaryd.watch.model.detector import detectors


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFixture]:
    folder = tmp_path_factory.mktemp("watched")
    with PreparedServer(folder / "server") as server, ServerFixture(server, folder) as made:
        yield made


def test_a_burst_of_refusals_is_found_explained_and_replayed(live_server: ServerFixture, tmp_path: Path) -> None:
    name, path = live_server.agent("files:read")
    ostiary = Commands(live_server.server.folder)
    for _ in range(26):  # windows of ten minutes: one of two has half of them
        refused = ostiary(
            "token", "--agent", name, "--key", path, "--resource", "https://elsewhere.example", "--scope", "other:read"
        )
        assert refused.code != 0
    [one] = eventually(lambda: ostiary.json("watch", "findings", "--agent", name))
    assert one["detector"] == "denied_burst"
    explained = ostiary.json("watch", "explain", one["finding_id"])
    assert explained["about"].startswith("Denied burst")
    assert [entry["outcome"] for entry in explained["rests_on"]] == ["refused"] * len(one["entries"])
    assert {entry["network"] for entry in explained["rests_on"]} == {"127.0.0.0/24"}
    assert explained["risk"][one["agent"]] > 0
    status = ostiary.json("watch", "status")
    assert (status["phase"], status["failing"], status["unanswered"]) == ("working", {}, [])
    assert set(status["detectors"]) == set(detectors())
    assert ostiary.json("audit", "export", tmp_path / "ledger")
    replayed = ostiary.json("watch", "replay", tmp_path / "ledger")
    assert [found["entry"] for found in replayed["findings"] if found["detector"] == "denied_burst"] == one["entries"][
        -1:
    ]
    for words in (["status"], ["findings"], ["explain", one["finding_id"]], ["replay", str(tmp_path / "ledger")]):
        shown = run("watch", *words, "--data-dir", str(live_server.server.folder))
        assert shown.code == 0
        assert "denied_burst" in shown.out


def test_explaining_an_unknown_finding_is_an_error(live_server: ServerFixture) -> None:
    ran = run("watch", "explain", "fi_none", "--data-dir", str(live_server.server.folder))
    assert ran.code == 1
    assert "there is no finding with the id" in ran.err
    assert run("watch", "findings", "--limit", "1001", "--data-dir", str(live_server.server.folder)).code == 0, (
        "two pages"
    )


def entries(count: int) -> list[bytes]:
    return [
        encode_entry(
            Entry(
                at=n * 1000, action="token.issue", agent="ag_\x1b[2J", outcome="refused", reasons=[reason("no", "no")]
            )
        )
        for n in range(count)
    ]


def test_a_file_of_entries_is_replayed_without_a_server(tmp_path: Path) -> None:
    file = tmp_path / "entries"
    file.write_bytes(b"\n".join(entries(40)) + b"\n\n")
    ran = run("watch", "replay", str(file))
    assert ran.code == 0
    assert "40 events of 1 agents" in ran.out
    assert "denied_burst" in ran.out
    assert "\x1b" not in ran.out, "strangers choose names"


LONG = entries(1)[0] + b" " * 70_000
"""which is an entry, if it is read in parts"""


@pytest.mark.parametrize("body", [b"{", encode({"at": "never"}), b"x" * 70_000, LONG])
def test_a_file_with_a_malformed_or_too_long_entry_is_refused(tmp_path: Path, body: bytes) -> None:
    file = tmp_path / "entries"
    file.write_bytes(entries(1)[0] + b"\n" + body)
    ran = run("watch", "replay", str(file))
    assert ran.code != 0
    assert str(file) in ran.err


def test_a_missing_file_or_a_folder_without_an_export_is_a_usage_error(tmp_path: Path) -> None:
    assert run("watch", "replay", str(tmp_path / "none")).code == 2
    assert run("watch", "replay", str(tmp_path)).code == 2, "a folder that is no export"
