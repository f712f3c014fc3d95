"""The first ten minutes of a user: an existing agent, watched first, then kept to its recorded calls, unchanged."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness.patience import eventually
from tests.run.stdio_agent import CALLS, StdioAgent

ATTACKS = [
    ["delete_file", {"path": "reports/q3.txt"}],
    ["read_file", {"path": "/etc/passwd"}],
    ["write_file", {"path": "reports/q3.txt", "text": "down 40 %, sell everything"}],
]


@pytest.mark.slow
def test_a_watched_agent_is_enforced_with_the_suggested_scopes_and_bounds(
    stdio_agent: StdioAgent, tmp_path: Path
) -> None:
    before = stdio_agent.config.read_bytes()

    watched = stdio_agent.run()
    assert watched.code == 0, watched.err
    assert [said["ok"] for said in watched.said] == [True, True]
    assert f"registered the agent `{stdio_agent.name}`" in watched.err
    assert "from its own listing" in watched.err
    assert len(re.findall(r"would be denied files/(write|read)_file +admin +standing task", watched.err)) == 2
    assert "2 calls of" in watched.err
    assert f"next: ostiary suggest {stdio_agent.name} --since 1m" in watched.err
    seen = stdio_agent.entries()
    assert [(entry["outcome"], entry["detail"]["verdict"]) for entry in seen] == [("allow", "deny")] * 2
    assert seen[0]["arguments"] == CALLS[0][1]
    told = [
        *seen,
        *stdio_agent.entries("tool.result"),
    ]  # one that came after its call was reported is an entry of its own
    results = [entry["result"] for entry in told if "result" in entry]
    assert [result["status"] for result in results] == ["ok", "ok"]
    assert all(result["bytes"] > 0 for result in results)

    eventually(lambda: stdio_agent.ostiary("watch", "status")["position"] > seen[-1]["index"])
    assert stdio_agent.ostiary("watch", "findings", "--agent", stdio_agent.name) == [], (
        "nobody has said yet what it is for"
    )

    folder = tmp_path / "suggested"
    suggested = stdio_agent.ostiary("suggest", stdio_agent.name, "--since", "10m", "--write", str(folder))
    scopes = [f"{stdio_agent.name}.files:read", f"{stdio_agent.name}.files:write"]
    assert suggested["scopes"] == suggested["missing"] == scopes
    assert suggested == stdio_agent.ostiary("suggest", stdio_agent.name, "--since", "10m") | {"folder": str(folder)}
    assert all(
        line["calls"] == 1 and line["example"] in {entry["index"] for entry in seen} for line in suggested["lines"][2:]
    )
    bounds = json.loads((folder / "bounds.json").read_text())
    assert [(one["actions"], one["arguments"]["path"]) for one in bounds] == [
        (["read_file"], {"eq": "reports/q3.txt"}),
        (["write_file"], {"eq": "reports/q3.txt"}),
    ]
    assert stdio_agent.ostiary("policy", "test", str(folder / "policies"))["tests"] >= 3

    resource = f"{stdio_agent.name}.files"
    assert stdio_agent.ostiary("resource", "show", resource)["catalogue_proposed"] is True
    early = stdio_agent.ostiary("enforce", stdio_agent.name, "--yes")
    assert (early["calls"], early["allowed"], early["unclear"]) == (2, 0, [])
    assert all(f"lacks the scope `{resource}:" in one["why"] for one in early["denied"])
    stdio_agent.ostiary("enforce", stdio_agent.name, "--off")
    stdio_agent.ostiary("agent", "allow", stdio_agent.name, *scopes)
    said = stdio_agent.ostiary("enforce", stdio_agent.name, "--bounds", str(folder / "bounds.json"), "--yes")
    assert (said["calls"], said["allowed"], said["denied"], said["unclear"]) == (2, 2, [], [])
    shown = stdio_agent.ostiary("resource", "show", resource)
    assert (shown["mode"], shown["catalogue_proposed"]) == ("enforce", False)

    bounded = ("--bounds", str(folder / "bounds.json"))
    again = stdio_agent.run([*CALLS, *ATTACKS], *bounded)
    assert again.code == 0, again.err
    assert [said["ok"] for said in again.said] == [True, True, False, False, False]
    for denied in again.said[2:]:
        assert denied["code"] == -32001
        assert denied["data"]["error"] == "outside_task"
        assert denied["data"]["hint"]
    assert (stdio_agent.root / "reports" / "q3.txt").read_text() == "up 4 %"
    assert len(re.findall(r"^ostiary deny files/", again.err, re.M)) == 3
    assert "2 allowed, 3 denied" in again.err
    assert [entry["outcome"] for entry in stdio_agent.entries()[2:]] == ["allow", "allow", "deny", "deny", "deny"]
    assert all("arguments" not in entry for entry in stdio_agent.entries()[2:]), "what is enforced is not learned from"

    stdio_agent.ostiary("enforce", stdio_agent.name, "--off")
    assert [said["ok"] for said in stdio_agent.run([ATTACKS[0]]).said] == [True]
    assert stdio_agent.config.read_bytes() == before


@pytest.mark.slow
def test_a_suggested_policy_also_applies_to_the_standing_task(stdio_agent: StdioAgent, tmp_path: Path) -> None:
    stdio_agent.run([CALLS[0]])
    folder, active = tmp_path / "suggested", stdio_agent.ostiary("policy", "show")["hash"]
    suggested = stdio_agent.ostiary("suggest", stdio_agent.name, "--write", str(folder))
    stdio_agent.ostiary("agent", "allow", stdio_agent.name, *suggested["scopes"])
    stdio_agent.ostiary("enforce", stdio_agent.name, "--yes")
    delete = ["delete_file", {"path": "reports/q3.txt"}]  # of the same scope as write_file
    stdio_agent.ostiary("policy", "put", str(folder / "policies"))
    try:
        ran = stdio_agent.run([CALLS[0], delete])
    finally:
        stdio_agent.ostiary("policy", "activate", active)
    assert [said["ok"] for said in ran.said] == [True, False]
    assert ran.said[1]["data"]["error"] == "forbidden_by_policy"
    assert "was never seen to call this" in ran.said[1]["text"]
    assert [said["ok"] for said in stdio_agent.run([delete]).said] == [True]
