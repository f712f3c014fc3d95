"""The ledger from the command line: found by names, printed for grep, proved and verified without the server."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from pathlib import Path

import pytest

from harness.cli import Commands, run
from ostiary.cli.audit import search
from ostiary.cli.spans import parse_time
from ostiary.cli.usage import Usage
from ostiary.protocol.jose import generate, unb64u
from ostiary.protocol.note import NoteKey
from ostiaryd.ledger.wire_admin import FILTERS

NOW = 1_800_000_000_000_000
MINUTE = 60_000_000


def test_a_search_has_an_option_for_each_filter_of_the_api() -> None:
    pages = {"after", "before", "total"}
    assert {one.name for one in FILTERS} - pages == inspect.signature(search).parameters.keys() - {
        "receipts",
        "session",
    }


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("90s", NOW - 90_000_000),
        ("15m", NOW - 15 * MINUTE),
        ("24h", NOW - 1440 * MINUTE),
        ("7d", NOW - 10_080 * MINUTE),
        ("2w", NOW - 20_160 * MINUTE),
        ("1h30m", NOW - 90 * MINUTE),
        ("0s", NOW),
        ("2026-01-31T12:00:00Z", 1_769_860_800_000_000),
        ("2026-01-31T13:00:00+01:00", 1_769_860_800_000_000),
        ("2026-01-31T12:00:00", 1_769_860_800_000_000),
        ("2026-01-31", 1_769_817_600_000_000),
        ("2026-01-31T12:00:00.25Z", 1_769_860_800_250_000),
    ],
)
def test_times_are_spans_back_from_now_or_instants_in_utc(text: str, time: int) -> None:
    assert parse_time(text, now=NOW) == time


@pytest.mark.parametrize("text", ["", "15", "m", "15 m", "15y", "-15m", "now", "31.01.2026", "1h30", "9999999999s"])
def test_a_malformed_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(Usage, match="as a time") as refused:
        parse_time(text, now=NOW)
    assert "15m" in refused.value.hint


@pytest.fixture
def busy(ostiary: Commands, name: str, tmp_path: Path) -> str:
    """An agent that has done something, and was refused something; its name."""
    key = tmp_path / "key.json"
    made = ("--owner", "ada", "--purpose", "tests", "--scope", "a:read", "--undeclared", "--generate-key", key)
    ostiary.json("agent", "create", name, *made)
    elsewhere = ("--resource", "https://elsewhere.example.org")
    ostiary.json("token", "--agent", name, "--key", key, *elsewhere, "--scope", "a:read")
    assert ostiary("token", "--agent", name, "--key", key, *elsewhere, "--scope", "b:read").code == 1
    return name


def test_entries_are_found_by_the_names_of_agents_persons_and_resources(ostiary: Commands, busy: str) -> None:
    agent = ostiary.json("agent", "show", busy)
    found = ostiary.json("audit", "search", "--agent", busy)
    assert [(entry["action"], entry["outcome"]) for entry in found] == [
        ("token.issue", "refused"),
        ("token.issue", "ok"),
    ]
    assert {entry["agent"] for entry in found} == {agent["agent_id"]}
    assert found == ostiary.json("audit", "search", "--agent", agent["agent_id"])
    assert ostiary.json("audit", "search", "--agent", busy, "--outcome", "refused") == found[:1]
    assert ostiary.json("audit", "search", "--agent", busy, "--action", "token.issue", "--limit", 1) == found[:1]
    issued = ("--action", "token.issue", "--outcome", "ok", "--resource", "ostiary", "--limit", 1)
    assert ostiary.json("audit", "search", *issued)[0]["agent"] != agent["agent_id"]
    assert ostiary.json("audit", "search", "--person", "ada") == []


def test_since_and_until_limit_the_search(ostiary: Commands, busy: str) -> None:
    assert len(ostiary.json("audit", "search", "--agent", busy, "--since", "15m")) == 2
    assert ostiary.json("audit", "search", "--agent", busy, "--until", "15m") == []
    assert ostiary.json("audit", "search", "--agent", busy, "--since", "2100-01-01") == []


def test_a_search_without_json_prints_a_line_with_names_for_each_entry(ostiary: Commands, busy: str) -> None:
    out = ostiary("audit", "search", "--agent", busy).out
    heading, *lines = out.splitlines()
    assert heading.split("\t") == ["ENTRY", "TIME", "OUTCOME", "ACTION", "SUBJECT", "OBJECT", "REASONS"]
    for line, outcome in zip(lines, ("refused", "ok"), strict=True):
        pattern = rf"\d+\t\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\dZ\t{outcome}\ttoken\.issue\t{busy}\t"
        assert re.match(pattern, line), line
    assert "\x1b" not in out
    assert "ag_" not in out


def test_tail_shows_the_newest_entries_in_ascending_order(ostiary: Commands, busy: str) -> None:
    indices = [entry["index"] for entry in ostiary.json("audit", "tail", "-n", 5)]
    assert indices == list(range(indices[0], indices[0] + 5))
    assert ostiary.json("audit", "show", indices[-1])["index"] == indices[-1]


def test_a_search_beyond_one_page_is_fetched_in_pages(
    ostiary: Commands, busy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.cli.audit.PAGE", 3)
    until = ("--until", "0s", "--limit", 8)
    indices = [entry["index"] for entry in ostiary.json("audit", "search", *until)]
    assert indices == list(range(indices[0], indices[0] - 8, -1))


def test_a_receipt_is_checked_without_the_server(ostiary: Commands, busy: str, tmp_path: Path) -> None:
    index = ostiary.json("audit", "search", "--agent", busy)[0]["index"]
    proof = ostiary.json("audit", "prove", index)
    bare = ostiary("audit", "prove", index).out
    assert bare.startswith("c2sp.org/tlog-proof@v1\n")
    receipt, key = tmp_path / "receipt", tmp_path / "vkey"
    receipt.write_text(json.dumps(proof))
    key.write_text(next(one["kid"] for one in ostiary.json("keys", "list") if one["use"] == "ledger"))
    assert run("audit", "check", receipt, "--key", key, "--json").json["index"] == index
    assert run("audit", "check", receipt, "--key", key.read_text()).code == 0
    receipt.write_text(json.dumps(proof | {"entry": proof["entry"].replace("refused", "ok")}))
    false = run("audit", "check", receipt, "--key", key)
    assert (false.code, "false" in false.out) == (5, True)
    receipt.write_text(bare)
    without_entry = run("audit", "check", receipt, "--key", key)
    assert (without_entry.code, "ostiary audit prove INDEX --json > FILE" in without_entry.err) == (2, True)


def test_a_receipt_bundle_with_one_false_receipt_is_false(ostiary: Commands, busy: str, tmp_path: Path) -> None:
    indexes = [entry["index"] for entry in ostiary.json("audit", "search", "--agent", busy)[:2]]
    receipts = [ostiary.json("audit", "prove", index) for index in indexes]
    bundle, key = (
        tmp_path / "bundle",
        next(one["kid"] for one in ostiary.json("keys", "list") if one["use"] == "ledger"),
    )
    bundle.write_text(json.dumps({"receipts": receipts}))
    assert run("audit", "check", bundle, "--key", key, "--json").json["indexes"] == indexes
    bundle.write_text(json.dumps({"receipts": [receipts[0], receipts[1] | {"entry": receipts[0]["entry"]}]}))
    false = run("audit", "check", bundle, "--key", key, "--json")
    assert (false.code, json.loads(false.out)["message"].partition(":")[0]) == (5, "receipt 2 of 2")
    bundle.write_text('{"receipts": []}')
    assert run("audit", "check", bundle, "--key", key).code not in (0, 5)


def test_receipts_of_a_search_form_a_bundle_and_truncation_is_reported(
    ostiary: Commands, busy: str, tmp_path: Path
) -> None:
    key = next(one["kid"] for one in ostiary.json("keys", "list") if one["use"] == "ledger")
    search = ("audit", "search", "--agent", busy)
    indexes = [entry["index"] for entry in ostiary.json(*search)]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert f"{len(indexes)} receipts" in ostiary(*search, "--receipts", whole).out
    assert run("audit", "check", whole, "--key", key, "--json").json["indexes"] == indexes
    assert f"1 of {len(indexes)}; --limit" in ostiary(*search, "--limit", 1, "--receipts", cut).out
    assert run("audit", "check", cut, "--key", key, "--json").json["indexes"] == indexes[:1]


@pytest.fixture
def exported(ostiary: Commands, busy: str, tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    assert ostiary.json("audit", "export", folder)["size"] > 5
    return folder


def test_verify_reports_the_key_that_its_verdict_trusts(ostiary: Commands, exported: Path, busy: str) -> None:
    own = run("audit", "verify", exported, "--json").json
    assert (own["ok"], own["key_given"], own["findings"]) == (True, False, [])
    assert "the key in the export" in run("audit", "verify", exported).out
    given = run("audit", "verify", exported, "--key", exported / "key").out
    assert "the verdict trusts the key of `--key`" in given
    assert "verified" in given
    ostiary.json("agent", "suspend", busy)
    live = ostiary.json("audit", "verify")
    assert live["ok"]
    assert live["size"] > own["size"]


def test_verify_exits_with_5_and_names_the_entry_that_was_changed(exported: Path) -> None:
    bundle = next(path for path in sorted((exported / "tile" / "entries").rglob("*")) if path.is_file())
    data = bundle.read_bytes()
    bundle.write_bytes(data.replace(b'"outcome":"refused"', b'"outcome":"RefuseD"', 1))
    ran = run("audit", "verify", exported, "--json")
    assert ran.code == 5
    [finding] = json.loads(ran.out)["findings"]
    assert finding["kind"] == "altered"
    said = run("audit", "verify", exported)
    assert (said.code, f"altered entry {finding['index']}" in said.out) == (5, True)


def test_verify_with_a_later_checkpoint_detects_a_rollback(
    ostiary: Commands, exported: Path, tmp_path: Path, busy: str
) -> None:
    ostiary.json("agent", "suspend", busy)
    ostiary.json("audit", "export", tmp_path / "later")
    seen = tmp_path / "later" / "checkpoint"
    assert run("audit", "verify", tmp_path / "later", "--seen", exported / "checkpoint").code == 0
    ran = run("audit", "verify", exported, "--seen", seen, "--json")
    assert ran.code == 5
    assert {finding["kind"] for finding in json.loads(ran.out)["findings"]} == {"rollback"}


def test_verify_with_the_key_of_another_log_reports_an_invalid_signature(exported: Path) -> None:
    other = NoteKey("localhost/ostiary", unb64u(generate("EdDSA").public.jwk["x"])).vkey
    ran = run("audit", "verify", exported, "--key", other, "--json")
    assert ran.code == 5
    assert {finding["kind"] for finding in json.loads(ran.out)["findings"]} == {"signature"}


def test_a_second_export_to_the_same_folder_adds_the_entries_since_the_first(
    ostiary: Commands, exported: Path, tmp_path: Path, busy: str
) -> None:
    before = run("audit", "verify", exported, "--json").json["size"]
    earlier = Path(shutil.copy(exported / "checkpoint", tmp_path / "earlier"))
    ostiary.json("agent", "suspend", busy)
    again = ostiary.json("audit", "export", exported)["size"]
    assert again > before
    assert run("audit", "verify", exported, "--seen", earlier).code == 0
    assert run("audit", "verify", exported, "--json").json["size"] == again
