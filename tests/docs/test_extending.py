"""The recipes of docs/extending.md, followed in a copy of the source: rules hold, the server starts, routes answer."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S
from harness.server import COMMAND, running
from tests.support.sources import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
_BLOCK = re.compile(
    r"(?:^`(?P<path>src/[\w/.]+|pyproject\.toml)`:\n\n)?^```(?P<kind>python|sql|diff)\n(?P<text>.*?)^```", re.M | re.S
)
_CHECKS = (
    "pyproject.toml",
    "tests/architecture/test_doors.py",
    "tests/support/sources.py",
)
"""The rules of imports and layers, as `make check` and `make test` apply them."""


def follow(folder: Path) -> list[str]:
    """Write the files of the page, and add its lines to files that exist; return the paths of the new files."""
    path, written = "", []
    for block in _BLOCK.finditer(PAGE):
        path = block["path"] or path
        target = folder / path
        if block["kind"] == "diff":
            anchor, *added = block["text"].splitlines()
            text = target.read_text("utf-8")
            assert text.count(f"{anchor[1:]}\n") == 1, f"{path} has the line once: {anchor[1:]}"
            lines = "".join(f"{line[1:]}\n" for line in added if line.startswith("+"))
            target.write_text(text.replace(f"{anchor[1:]}\n", f"{anchor[1:]}\n{lines}"), "utf-8")
        else:
            assert not target.exists(), f"{path} is new"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block["text"], "utf-8")
            written.append(path)
    return written


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in _CHECKS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    assert len(follow(folder)) >= 14
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    assert check(folder, "ruff", "check", "--no-cache", "--fix-only", "src/ostiaryd/app.py").returncode == 0
    return folder


def check(copy: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program of our environment on the copy."""
    environment = os.environ | {"PYTHONPATH": str(copy / "src")}
    program = [Path(sys.executable).with_name(str(command[0])), *command[1:]]
    return subprocess.run(
        program, cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )


@pytest.mark.slow
def test_the_recipes_keep_style_imports_and_layers(copy: Path) -> None:
    for command in (
        ("ruff", "check", "--no-cache", "src"),
        ("ruff", "format", "--no-cache", "--check", "src/ostiaryd"),
        ("lint-imports", "--no-logo", "--no-cache"),
        ("pytest", "-q", "-p", "no:cacheprovider", "tests/architecture/test_doors.py"),
    ):
        run = check(copy, *command)
        assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
def test_a_recipe_that_breaks_a_layer_is_noticed(copy: Path) -> None:
    """The control: the checks look at the new packages."""
    model = copy / "src/ostiaryd/certs/model.py"
    text = model.read_text("utf-8")
    model.write_text(text.replace("import msgspec\n", "import msgspec\n\nfrom ostiaryd.certs import flows\n"), "utf-8")
    try:
        run = check(copy, "pytest", "-q", "-p", "no:cacheprovider", "tests/architecture/test_doors.py")
    finally:
        model.write_text(text, "utf-8")
    assert run.returncode == 1
    assert "ostiaryd.certs.flows" in run.stdout


@pytest.mark.slow
def test_the_server_of_the_copy_serves_the_new_routes(copy: Path, tmp_path: Path) -> None:
    command = ("env", f"PYTHONPATH={copy / 'src'}", COMMAND)
    with running(tmp_path / "data", command=command) as server:
        directory = httpx2.get(f"{server.url}/acme/directory")
        assert directory.json() == {"newAccount": f"{server.url}/api/v1/acme/accounts"}
        page = httpx2.get(f"{server.url}/console/ledger")
        assert "<pre>127.0.0.1" in page.text or "<pre>localhost" in page.text
        assert httpx2.post(f"{server.url}/api/v1/acme/accounts", json={"thumbprint": "a" * 43}).status_code == 401
        with ServerFixture(server, tmp_path) as fixture:
            assert fixture.api("POST", "/acme/accounts", {"thumbprint": "a" * 43})["thumbprint"] == "a" * 43
            [entry] = fixture.api("GET", "/audit", action="cert.account")["entries"]
        assert entry["object"] == "a" * 43


def test_the_plug_ins_of_the_copy_do_their_work(copy: Path) -> None:
    program = """
import json
from ostiary.provenance.noticing import Event
from ostiaryd.ledger.exporters.ecs import render_entry
from ostiaryd.ledger.model import Entry
from ostiaryd.secrets.model import secret_engines
from ostiaryd.watch.model.batch import Batch
from ostiaryd.watch.model.detector import detectors, zeros

detector = detectors()["large_answer"]
sizes = (99_999_999, 100_000_000)
events = [Event(at=n, action="tool.call", outcome="allow", bytes=size) for n, size in enumerate(sizes)]
findings = detector.notice(Batch(events, [1, 1], [0, 0]), zeros(detector, agents=2, peers=1))
engine = secret_engines()["password"]
print(json.dumps({
    "rows": [finding.row for finding in findings],
    "secret": engine.issue_secret(bytes(engine.RANDOM_BYTES)),
    "document": render_entry(7, Entry(at=0, action="tool.call", outcome="deny", agent="ag_1")),
}))
"""
    run = check(copy, Path(sys.executable).name, "-c", program)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {
        "rows": [1],
        "secret": "A" * 24,
        "document": {
            "@timestamp": "1970-01-01T00:00:00+00:00",
            "event": {"id": "7", "action": "tool.call", "outcome": "failure"},
            "user": {"id": "ag_1"},
        },
    }
