"""`ostiary run` itself: what it needs, what it says, how it ends; and servers made by others."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.patience import PATIENCE_S
from harness.server import COMMAND
from tests.run.stdio_agent import CALLS, StdioAgent
from tests.support.sources import ROOT

FILESYSTEM = ROOT / "tests" / "node" / "node_modules" / "@modelcontextprotocol" / "server-filesystem"


def test_the_exit_code_and_the_output_of_a_run_are_those_of_its_command(stdio_agent: StdioAgent) -> None:
    script = "import sys; print(sys.stdin.read() + 'out'); print('err', file=sys.stderr); sys.exit(41)"
    words = [
        "run",
        "--agent",
        stdio_agent.name,
        "--config",
        str(stdio_agent.config),
        "--quiet",
        "--",
        sys.executable,
        "-c",
        script,
    ]
    done = subprocess.run(
        [COMMAND, "--data-dir", stdio_agent.server.folder, *words, "{mcp_config}"],
        capture_output=True,
        text=True,
        input="in",
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (41, "inout\n", "err\n")
    killed = stdio_agent.run(command=["sh", "-c", "kill -9 $$", "{mcp_config}"])
    assert killed.code == 128 + signal.SIGKILL
    missing = stdio_agent.run(command=["/nowhere/agent", "{mcp_config}"])
    assert missing.code == 2
    assert "cannot run /nowhere/agent" in missing.err


def test_a_signal_is_forwarded_and_the_guarded_configuration_is_deleted_after_the_run(stdio_agent: StdioAgent) -> None:
    shown = stdio_agent.folder / "shown"
    script = f"cp $0 {shown}; trap 'exit 7' TERM; echo $0 > {shown}.path; while true; do sleep 0.05; done"
    words = [
        "run",
        "--agent",
        stdio_agent.name,
        "--config",
        str(stdio_agent.config),
        "--",
        "sh",
        "-c",
        script,
        "{mcp_config}",
    ]
    with subprocess.Popen(
        [COMMAND, "--data-dir", stdio_agent.server.folder, *words], stderr=subprocess.DEVNULL
    ) as process:
        until = time.monotonic() + PATIENCE_S
        while not Path(f"{shown}.path").exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        copy = Path(Path(f"{shown}.path").read_text().strip())
        assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 7
    assert not copy.parent.exists()
    entry = json.loads(shown.read_text())["mcpServers"]["files"]
    assert entry["args"][:2] == ["-m", "ostiary.run"]
    assert entry["args"][3:] == [
        "--",
        sys.executable,
        *json.loads(stdio_agent.config.read_text())["mcpServers"]["files"]["args"],
    ]


def test_the_agent_gets_no_environment_variable_of_the_administrator(stdio_agent: StdioAgent) -> None:
    script = "import json, os; print(json.dumps([name for name in os.environ if name.startswith('OSTIARY')]))"
    own = {"OSTIARY_DATA_DIR": str(stdio_agent.server.folder), "OSTIARY_X": str(stdio_agent.config)}
    environment = os.environ | own | {"OSTIARY_CREDENTIAL": "x"}
    words = ["run", "--agent", stdio_agent.name, "--config-env", "OSTIARY_X", "--"]
    done = subprocess.run(
        [COMMAND, *words, sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment,
        timeout=PATIENCE_S,
        check=False,
    )
    assert json.loads(done.stdout) == ["OSTIARY_X"], done.stderr


def test_a_server_whose_tools_are_listed_gets_no_environment_variable_of_the_administrator(
    stdio_agent: StdioAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of others is started for the listing before the agent runs."""
    shown = stdio_agent.folder / "environment"
    text = json.loads(stdio_agent.config.read_text())
    entry = text["mcpServers"]["files"]
    dump = f"json.dump(dict(os.environ), open({str(shown)!r}, 'w'))"
    script = f"import json, os, sys; {dump}; os.execv(sys.argv[1], sys.argv[1:])"
    entry["args"], entry["command"] = ["-c", script, entry["command"], *entry["args"]], sys.executable
    entry["env"] = {"ROOT_KEY": "${OSTIARY_ROOT_KEY:-none}", "OSTIARY_OF_SERVER": "1"}
    stdio_agent.config.write_text(json.dumps(text))
    for name in ("OSTIARY_CREDENTIAL", "OSTIARY_ROOT_KEY"):
        monkeypatch.setenv(name, "x")
    ran = stdio_agent.run(command=("true", "{mcp_config}"))
    assert ran.code == 0, ran.err
    seen = json.loads(shown.read_text())
    assert (seen["PATH"], seen["ROOT_KEY"]) == (os.environ["PATH"], "none")
    assert [name for name in seen if name.startswith("OSTIARY")] == ["OSTIARY_OF_SERVER"], "its own is kept"


def test_the_keys_of_an_agent_are_generated_once_in_private_folders(stdio_agent: StdioAgent) -> None:
    quiet = ("true", "{mcp_config}")
    first = stdio_agent.run(command=quiet)
    assert f"registered the agent `{stdio_agent.name}`" in first.err
    files = {file: file.read_bytes() for file in stdio_agent.keys.rglob("*") if file.is_file()}
    assert {file.name for file in files} == {"agent.json", "files.json", "files.mode", "files.cmd"}
    for path in (stdio_agent.keys.parent, stdio_agent.keys, stdio_agent.keys / "servers"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    second = stdio_agent.run(command=quiet)
    assert "registered" not in second.err
    assert {file: file.read_bytes() for file in files} == files
    agent = stdio_agent.ostiary("agent", "show", stdio_agent.name)
    assert (agent["owner"], agent["scopes"]) == ("admin", [])
    (stdio_agent.keys / "agent.json").unlink()
    lost = stdio_agent.run(command=quiet)
    assert lost.code == 2
    assert f"ostiary key add {stdio_agent.name} --generate-key" in lost.err.replace("\n", " ")


def test_a_server_without_a_catalogue_runs_in_watch_mode(stdio_agent: StdioAgent) -> None:
    stdio_agent.config.write_text(json.dumps({"mcpServers": {"files": {"command": "true"}}}))
    ran = stdio_agent.run(command=("true", "{mcp_config}"))
    assert ran.code == 0
    assert "no catalogue of `files`: the MCP server" in ran.err
    assert "in mode watch: no tools are known" in ran.err
    assert stdio_agent.ostiary("resource", "show", f"{stdio_agent.name}.files")["catalogue"] is None


@pytest.mark.slow
def test_another_command_under_a_registered_name_is_refused_in_enforce_mode(stdio_agent: StdioAgent) -> None:
    quiet = ("true", "{mcp_config}")
    stdio_agent.run(command=quiet)
    text = json.loads(stdio_agent.config.read_text())
    text["mcpServers"]["files"]["args"].append("more")
    stdio_agent.config.write_text(json.dumps(text))
    assert "was registered with another command" in stdio_agent.run(command=quiet).err
    stdio_agent.ostiary("enforce", stdio_agent.name, "--yes")
    refused = stdio_agent.run(command=quiet)
    assert (refused.code, "was registered with another command" in refused.err) == (2, True)
    assert stdio_agent.run(CALLS, "--refresh", command=quiet).code == 2
    stdio_agent.ostiary("enforce", stdio_agent.name, "--off")
    assert stdio_agent.run(CALLS, "--refresh", command=quiet).code == 0
    stdio_agent.ostiary("enforce", stdio_agent.name, "--yes")
    assert stdio_agent.run(command=quiet).code == 0


@pytest.mark.slow
def test_a_new_server_of_an_enforced_agent_begins_in_enforce_mode(stdio_agent: StdioAgent) -> None:
    quiet = ("true", "{mcp_config}")
    stdio_agent.run(command=quiet)
    stdio_agent.ostiary("enforce", stdio_agent.name, "--yes")
    text = json.loads(stdio_agent.config.read_text())
    text["mcpServers"]["fresh"] = text["mcpServers"]["files"]
    stdio_agent.config.write_text(json.dumps(text))
    assert f"`{stdio_agent.name}.fresh` in mode enforce" in stdio_agent.run(command=quiet).err
    assert (stdio_agent.keys / "servers" / "fresh.mode").read_text() == "enforce"


def test_without_the_ostiary_server_only_a_registered_agent_runs(stdio_agent: StdioAgent, tmp_path: Path) -> None:
    environment = {
        "OSTIARY_URL": "http://127.0.0.1:9",
        "OSTIARY_CREDENTIAL": str(stdio_agent.server.folder / "admin.json"),
    }
    words = [
        str(COMMAND),
        "run",
        "--agent",
        stdio_agent.name,
        "--config",
        str(stdio_agent.config),
        "--",
        "echo",
        "{mcp_config}",
    ]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, capture_output=True, text=True, env=os.environ | environment, timeout=PATIENCE_S, check=False
        )

    unknown = run()
    assert (unknown.returncode, unknown.stdout) == (3, "")
    stdio_agent.run(command=("true", "{mcp_config}"))
    known = run()
    assert known.returncode == 0
    assert known.stdout.endswith("mcp.json\n")
    assert "the Ostiary server does not answer" in known.stderr


@pytest.mark.slow
@pytest.mark.skipif(not FILESYSTEM.exists(), reason="npm has not installed it")
def test_the_mcp_filesystem_server_is_watched_and_then_enforced(stdio_agent: StdioAgent, tmp_path: Path) -> None:
    """From watching to enforcing, with the server that most people begin with."""
    root = stdio_agent.root.resolve()
    entry = {"command": "node", "args": [str(FILESYSTEM / "dist" / "index.js"), str(root)]}
    stdio_agent.config.write_text(json.dumps({"mcpServers": {"files": entry}}))
    for name in ("a.txt", "b.txt", "c.txt"):
        (root / name).write_text(name)
    reading: list[Any] = [["read_text_file", {"path": f"{root}/{name}"}] for name in ("a.txt", "b.txt", "c.txt")]
    watched = stdio_agent.run(reading)
    assert [said["text"] for said in watched.said] == ["a.txt", "b.txt", "c.txt"], watched.err
    folder = tmp_path / "suggested"
    suggested = stdio_agent.ostiary("suggest", stdio_agent.name, "--write", str(folder))
    [bound] = suggested["bounds"]
    assert bound["actions"] == ["read_text_file"]
    assert bound["arguments"] == {"path": {"glob": f"{root}/*.txt"}}
    stdio_agent.ostiary("agent", "allow", stdio_agent.name, *suggested["missing"])
    stdio_agent.ostiary("enforce", stdio_agent.name, "--yes")
    (root / "key.pem").write_text("secret")
    attack = [["read_text_file", {"path": f"{root}/key.pem"}], ["write_file", {"path": f"{root}/a.txt", "content": ""}]]
    enforced = stdio_agent.run([*reading, *attack], "--bounds", str(folder / "bounds.json"))
    assert [said["ok"] for said in enforced.said] == [True, True, True, False, False], enforced.err
    assert (root / "a.txt").read_text() == "a.txt"
