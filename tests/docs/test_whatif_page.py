"""The what-if commands of docs/reference/policies.md, on a server with decided calls, on both databases."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S
from harness.prepared import PreparedServer
from harness.server import Server
from ostiaryd.policy import wire_whatif
from ostiaryd.policy.model import whatif_ticket

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "policies.md"
ARGUMENTS = {"properties": {"amount": {"type": "number"}, "pin": {"type": "string"}}}
TOOLS = [{"name": "pay", "effect": "pay", "kinds": {"pin": "secret"}, "arguments": ARGUMENTS}]


@pytest.fixture
def server(tmp_path: Path, database_url: str) -> Iterator[Server]:
    """A bank, and an agent that has paid 20, 150 and 250."""
    with (
        PreparedServer(tmp_path / "data", "--database", database_url) as server,
        ServerFixture(server, tmp_path) as live_server,
    ):
        catalogue = {"resource": "bank", "tools": TOOLS}
        live_server.api(
            "POST", "/resources", {"name": "bank", "uri": "https://bank.example.org/mcp", "catalogue": catalogue}
        )
        agent, _ = live_server.agent("bank:write")
        for amount in (20.0, 150.0, 250.0):
            question = {
                "subject": {"type": "agent", "id": agent},
                "action": {"name": "call"},
                "resource": {"type": "tool", "id": "bank/pay"},
                "context": {"arguments": {"amount": amount, "pin": "1234"}},
            }
            assert live_server.api("POST", "/decide", question)["decision"] is True
        yield server


def run(server: Server, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OSTIARY_DATA_DIR": str(server.folder), "TERM": "dumb"}
    return subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def section() -> str:
    page = PAGE.read_text("utf-8")
    return page[page.index("## What-if") : page.index("## Your own types")]


def write_set(folder: Path) -> None:
    """The set that the page begins with."""
    page = PAGE.read_text("utf-8")
    (folder / "payments").mkdir()
    for language, name in (("cedar", "payments.cedar"), ("cedarschema", "payments.cedarschema")):
        found = re.search(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
        assert found is not None
        (folder / "payments" / name).write_text(found[1])


@pytest.mark.slow
def test_the_commands_of_the_page_give_the_documented_output(server: Server, tmp_path: Path) -> None:
    write_set(tmp_path)
    ask, put = re.findall(r"^\$ (ostiary .+)$", section(), re.MULTILINE)
    shown = re.search(r"^VERDICT(?:.|\n)*?(?=\n```)", section(), re.MULTILINE)
    assert shown is not None
    asked = run(server, ask, tmp_path)
    assert asked.returncode == 6, asked.stderr
    assert list(map(_same, shown[0].splitlines())) == list(map(_same, asked.stdout.splitlines()))
    example = re.search(r"audit show (\d+)", asked.stdout)
    assert example is not None
    entry = run(server, f"ostiary audit show {example[1]} --json", tmp_path)
    assert '"tool": "pay"' in entry.stdout
    proof = run(server, f"ostiary audit prove {example[1]}", tmp_path)
    assert (proof.returncode, f"index {example[1]}" in proof.stdout) == (0, True), proof.stdout

    fewer = run(server, put.replace("--max-changes 2", "--max-changes 1"), tmp_path)
    assert (fewer.returncode, "small-payments" in fewer.stdout) == (1, True)
    assert "would_change: 2 recorded verdicts would change; at most 1 may" in fewer.stderr
    assert len(server.ostiary("policy", "list")) == 1
    done = run(server, put, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(server.ostiary("policy", "list")) == 2
    assert run(server, ask, tmp_path).returncode == 6, "what was decided before was decided by the set before"


def _same(line: str) -> str:
    """A line without what counts the entries and decisions of this very server."""
    return re.sub(r"\d+$|^\d+(?= decisions)", "N", " ".join(line.split()))


@pytest.mark.parametrize("database", ["sqlite"])  # exit codes of a command
@pytest.mark.slow
def test_a_what_if_exits_with_0_without_changes_with_5_if_unknown_and_with_an_error_if_invalid(
    server: Server, tmp_path: Path
) -> None:
    same = run(server, "ostiary policy export ./now && ostiary whatif ./now --json", tmp_path)
    assert (same.returncode, '"changed": 0' in same.stdout) == (0, True), same.stderr
    assert "ticket" not in same.stdout
    (tmp_path / "now" / "pin.cedarschema").write_text("type Arguments = { pin?: String };")
    (tmp_path / "now" / "pin.cedar").write_text(
        'forbid (principal, action == Action::"call", resource)\n'
        'when { context.arguments has pin && context.arguments.pin == "0000" };'
    )
    unknown = run(server, "ostiary whatif ./now", tmp_path)
    assert (unknown.returncode, "not known 3: " in unknown.stdout) == (5, True), unknown.stdout
    (tmp_path / "now" / "extra.cedar").write_text("permit (principal, action, resource) when { nonsense };")
    wrong = run(server, "ostiary whatif ./now --json", tmp_path)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "extra.cedar" in wrong.stderr
    assert run(server, "ostiary policy put ./now --max-changes 1", tmp_path).returncode == 2
    assert run(server, "ostiary whatif ./nowhere", tmp_path).returncode == 2


def test_the_numbers_on_the_page_are_those_of_the_code() -> None:
    assert re.findall(r"(\d+) (minutes|seconds)", section()) == [
        (str(whatif_ticket.LIFETIME // 60_000_000), "minutes"),
        (f"{wire_whatif.ALL_S:g}", "seconds"),
    ]
