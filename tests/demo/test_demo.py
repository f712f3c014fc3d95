"""The demo as a new user runs it: each step is printed, and no process or file is left after any end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from harness.patience import PATIENCE_S, eventually
from harness.server import COMMAND
from ostiary.demo.consenting import Browser

pytestmark = pytest.mark.slow


class Demo:
    """A running demo; its processes are known by a mark in their environment, its folder by where it must be."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder, self._mark = folder, uuid4().hex
        environment = {**os.environ, "TMPDIR": str(folder), "DEMO_MARK": self._mark, "COLUMNS": "80"}
        self.process = subprocess.Popen(
            [COMMAND, "demo", *options],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.said = ""

    def listen(self, until: str = "") -> None:
        """Read on, to the end or until a line has `until` in it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if until and until in line:
                return
        assert not until, f"it never said {until!r}: {self.said}"

    def end(self, number: int | None = None) -> int:
        if number is not None:
            self.process.send_signal(number)
        self.listen()
        return self.process.wait(PATIENCE_S)

    def left(self) -> list[str]:
        """Command lines of the processes that are still there, and files."""
        found = [str(path) for path in self._folder.iterdir()]
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark.encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_text())
            except (OSError, ProcessLookupError):
                continue  # it has just ended, or is of another user
        return found


@contextmanager
def demo(folder: Path, *options: str) -> Iterator[Demo]:
    folder.mkdir()
    running = Demo(folder, *options)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.terminate()
        running.process.wait(PATIENCE_S)
        if running.process.stdout is not None:
            running.process.stdout.close()


def test_the_demo_shows_each_documented_step_and_leaves_no_process_or_file(tmp_path: Path) -> None:
    with demo(tmp_path / "d", "--exit") as story:
        assert story.end() == 0, story.said
        assert story.left() == []
    said = story.said
    assert re.search(r"writer +write_file +reports/q3\.txt +allowed", said)
    assert re.search(r"reader +delete_file +reports/q3\.txt +denied\n +agent `ag_\w{32} \(reader\)` lacks", said)
    assert re.search(r"ostiary agent allow ag_\w{32} files:write\n", said)
    assert re.search(r"notes/private\.txt +denied\n +the argument `path` must begin with 'reports/'", said)
    assert re.search(r"reports/november\.txt +denied\n +task tk_\w{32} \(for October\) has ended", said)
    part = said.partition("delegates a part of its task")[2]
    outcomes = re.findall(r"(editor|helper) +write_file +(\S+) +(allowed|denied)", part)
    assert outcomes == [
        ("helper", "reports/figures/q3.txt", "allowed"),
        ("helper", "reports/summary.txt", "denied"),
        ("helper", "reports/figures/q2.txt", "allowed"),
        ("helper", "reports/figures/q1.txt", "denied"),
        ("helper", "reports/figures/q4.txt", "denied"),
        ("editor", "notes/editor.txt", "allowed"),
        ("helper", "notes/helper.txt", "allowed"),
    ]
    assert re.search(r"summary\.txt +denied\n +the argument `path` must begin with 'reports/figures/'", part)
    assert re.search(r"figures/q1\.txt +denied\n +the budget for calls of files/write_file has 0 of 2 left", part)
    assert "the editor has 3 of 5 calls left" in part
    assert re.search(r"\n   tk_\w{32}  editor  \(live,\s+until .*\n +.*Report for 2026", part)
    assert re.search(r"\n   └── tk_\w{32}  helper  \(live,\s+until ", part)
    assert re.search(r"figures/q4\.txt +denied\n +task tk_\w{32} \(for 2026\) has ended", part)
    asked = said.partition("a person who approves exactly one call")[2].partition("revoked in the middle")[0]
    outcomes = re.findall(r"assistant +(\w+) +(\S+) +(allowed|denied)", asked)
    assert outcomes == [
        ("read_file", "partner.txt", "allowed"),
        ("send_message", "ben@example.org", "allowed"),
        ("send_message", "collector@attacker.example", "denied"),
        ("send_message", "collector@attacker.example", "denied"),
        ("send_message", "cleo@partner.example", "denied"),
        ("send_message", "cleo@partner.example", "denied"),
        ("send_message", "cleo@partner.example", "allowed"),
        ("send_message", "cleo@partner.example", "denied"),
    ]
    assert "to = 'collector@attacker.example', which comes from outside" in asked
    assert re.search(r'cleo@partner\.example +denied\n +"Q3 was a disaster\."\n', asked), "what it would send"
    assert re.search(r"a person denied the approval request\s+\(ap_\w{32}\s+\(question 1\)\)", asked)
    assert "the approval of this request was already used" not in asked, "a repeated call asks again"
    assert "sent messages: ben@example.org, cleo@partner.example\n" in asked
    recorded = re.findall(r"(\w+) +(approval\.\w+)", asked.partition("the newest first")[2])
    assert {("ok", "approval.deny"), ("ok", "approval.approve"), ("ok", "approval.spend")} <= set(recorded)
    assert ("refused", "approval.ask") in recorded, "the second time"
    consented = said.partition("a person consents")[2].partition("revoked in the middle")[0]
    assert re.search(r"notebook +read_file +reports/q3\.txt +allowed", consented)
    assert "Notebook may files:read for ada" in consented
    assert "the client's token is refused: 401 Unauthorized" in consented
    assert re.search(r"the guard of `files` denied \d+\.\d ms after the commit", said)
    assert re.search(r"the last of \d+ allowed calls was answered \d+\.\d ms (before|after) the commit", said)
    assert re.search(r"writer denied: agent ag_\w{32}\s+\(writer\)\s+is\s+suspended", said)
    assert "the writer gets no new token" in said
    strange = said.partition("An agent behaves unusually")[2].partition("A certificate of an agent")[0]
    assert re.search(r"risen from 0 to [1-9]\d? of 100", strange)
    assert re.search(r"scout denied: agent ag_\w{32}\s+\(scout\)\s+is\s+quarantined", strange)
    guards = re.findall(r"the guard of `(\w+)` denied \d+\.\d ms after the finding", strange)
    assert sorted(guards) == ["files", "vault"]
    listed = re.search(r"\$ ostiary incident list\n +ID .*\n((?: +in_\S+ .*\n)+) +\$", strange)
    assert listed is not None
    noticed = re.findall(r"in_\S+ +open +(\w+)", listed[1])
    assert noticed in (["scout"], ["scout", "assistant"]), "nobody but these two read or did what they should not"
    assert re.search(r"canary, 80 points: called vault/export_keys", strange)
    assert re.search(r"quarantine done: the agent is stopped", strange)
    assert "refused: ada owns this agent" in strange
    assert re.findall(r"scout +read_file .* (allowed|denied)", strange) == ["allowed", "allowed"], "before and after"
    assert "the signal is accepted with 202, and the reader is quarantined" in strange
    steps = ("watch.find", "incident.open", "agent.quarantine", "incident.release", "agent.release", "watch.judge")
    recorded = re.findall(r"^ +(\d+) +\S+ \S+ +ok +(\S+)", strange.partition("Each of these steps")[2], re.MULTILINE)
    assert [action for _, action in recorded] == list(steps)
    numbers = {action: int(at) for at, action in recorded}
    assert numbers["agent.quarantine"] < numbers["incident.release"]
    certified = said.partition("A certificate of an agent: renewed, revoked, refused")[2].partition("calls an API")[0]
    assert re.findall(r"(accepted|refused)", certified) == ["accepted", "accepted", "refused", "refused"]
    assert re.search(r"refused,\s+certificate\s+revoked", certified)
    keyless = said.partition("with a key that it never sees")[2].partition("The ledger:")[0]
    assert re.search(r"orders: 200 two orders\n +echo: 200 Bearer \*{27}\n", keyless)
    assert "the placeholder to another server: 403 foreign_placeholder" in keyless
    assert "no key in answers, environment and words" in keyless
    assert len(re.findall(r"ok\s+vault\.inject\s+buyer\s+secret/agents/buyer/shop", keyless)) == 2
    assert not re.search(r"sk-[0-9a-f]{8}", keyless)
    assert re.search(r"verified \d+ entries of localhost/ostiary", said)
    assert re.search(r"falsified entry \d+ was altered", said)
    assert "denied denied" not in said
    assert set(re.findall(r"\b(?:ag|tk|ap|in|fi)_\w*", said)) == set(
        re.findall(r"\b(?:ag|tk|ap|in|fi)_[0-9a-f]{32}\b", said)
    ), "each id is whole"
    assert "--scope 'files:read files:write' \\\n       --purpose 'writer of reports'" in said, "commands are whole"
    assert max(map(len, said.splitlines())) <= 80
    assert "Traceback" not in said


def read(browser: Browser, path: str) -> Any:
    """Read an object of the API in the session of a browser."""
    browser._send("GET", browser._own + path[1:])
    return json.loads(browser.page)


def test_a_demo_without_the_exit_option_keeps_its_server_running_until_ctrl_c(tmp_path: Path) -> None:
    with demo(tmp_path / "d") as story:
        story.listen(until="--help")
        url = re.search(r"ready (http://\S+)", story.said)
        data = re.search(r"export OSTIARY_DATA_DIR=(\S+)", story.said)
        link = re.search(r"http://localhost:\d+/setup\?code=[\w-]{43}&return_to=/console", story.said)
        assert url is not None
        assert link is not None
        browser = Browser(url[1])
        browser.set_up(link[0])
        assert "The console needs script" in browser.page
        newest, *_ = read(browser, "/api/v1/approvals?state=open")["approvals"]
        assert (newest["agent"], newest["tool"]) == ("assistant", "files/send_message")
        latest = read(browser, "/api/v1/audit?outcome=allow&limit=1")
        eventually(lambda: read(browser, "/api/v1/audit?outcome=allow&limit=1") != latest)
        assert "The browser opens" not in story.said, "no terminal"
        assert data is not None
        assert httpx2.get(f"{url[1]}/.well-known/oauth-authorization-server").json()["issuer"] == url[1]
        printed = story.said.partition("look around")[2].strip().splitlines()[1:]
        kinds = [re.sub(r"_[0-9a-f]{32}$", "", line.split(None, 1)[1]) for line in printed[2:]]
        assert kinds == [
            "audit tail",
            "audit search --outcome deny",
            "agent show reader",
            "task show tk",
            "approvals show ap",
            "incident show in",
            "doctor",
            "--help",
        ]
        path = f"{Path(COMMAND).parent}:{os.environ['PATH']}"
        looked = subprocess.run(
            ["bash", "-ec", "\n".join(printed)],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert looked.returncode == 0, looked.stderr
        assert re.search(r"deny\s+tool\.call\s+reader\s+files/delete_file\s+outside_task", looked.stdout)
        assert story.end(signal.SIGINT) == 0, story.said
        assert story.left() == []


@pytest.mark.parametrize(("number", "until"), [(signal.SIGINT, "ready http"), (signal.SIGTERM, "revoke agent")])
def test_an_interrupted_demo_leaves_no_process_or_file(tmp_path: Path, number: int, until: str) -> None:
    with demo(tmp_path / "d", "--exit") as story:
        story.listen(until=until)
        assert story.end(number) == 130, story.said
        assert story.left() == []
    assert "Traceback" not in story.said
