"""A single command does everything, its installations are locked, and the packages for users are light."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.frameworks.environment import FRAMEWORKS
from tests.support.alone import MOST, run_again
from tests.support.sources import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCKS = ["dev", "uv", "opa", *(f"frameworks/{name}" for name in FRAMEWORKS)]
"""Files of `requirements/`."""
HEAVY = {"starlette", "uvicorn", "cedarpy", "psycopg", "numpy", "pydantic", "sqlalchemy", "mcp"}


def _locked(lock: str) -> dict[str, str]:
    text = (ROOT / f"requirements/{lock}.lock").read_text("utf-8")
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M)
    return {canonicalize_name(name): version for name, version in found}


LOCKED = _locked("dev")


def _declared() -> list[tuple[str, str]]:
    """Each dependency, and the lock that must have it: frameworks cannot share an environment."""
    project = PROJECT["project"]
    found = [("dev", text) for text in [*project["dependencies"], *PROJECT["dependency-groups"]["dev"]]]
    for extra, texts in project["optional-dependencies"].items():
        lock = f"frameworks/{extra}" if extra in FRAMEWORKS else {"rego": "opa"}.get(extra, "dev")
        found += [(lock, text) for text in texts]
    return found


@pytest.mark.parametrize(("lock", "text"), sorted(_declared()))
def test_the_lock_satisfies_every_declared_dependency(lock: str, text: str) -> None:
    wanted = Requirement(text)
    locked = _locked(lock)
    assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)], prereleases=True), "make lock"


def test_each_runtime_dependency_is_named_in_a_decision_record() -> None:
    records = "".join(path.read_text("utf-8").lower() for path in (ROOT / "docs/adr").glob("*.md"))
    names = {Requirement(text).name for lock, text in _declared() if lock in ("dev", "opa")}
    names -= {Requirement(text).name for text in PROJECT["dependency-groups"]["dev"]}
    assert names > {"msgspec", "starlette"}
    assert [name for name in names if name.lower() not in records] == []


@pytest.mark.parametrize("name", LOCKS)
def test_lock_files_name_hashes_and_no_host(name: str) -> None:
    text = (ROOT / f"requirements/{name}.lock").read_text("utf-8")
    assert "://" not in text
    for block in re.split(r"^(?=\w)", text, flags=re.M)[1:]:
        assert "--hash=sha256:" in block


@pytest.mark.parametrize("folder", ["tests/node", "clients/typescript"])
def test_the_npm_lock_names_hashes_and_no_host(folder: str) -> None:
    packages = json.loads((ROOT / folder / "package-lock.json").read_text("utf-8"))["packages"]
    installed = {name: package for name, package in packages.items() if name}
    assert installed
    for package in installed.values():
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package


def test_the_sdk_installs_no_heavy_dependencies() -> None:
    brought, waiting = set(), [Requirement(text).name for text in PROJECT["project"]["dependencies"]]
    while waiting:
        if (name := canonicalize_name(waiting.pop())) in brought or name not in LOCKED:
            continue
        brought.add(name)
        requirements = [Requirement(text) for text in distribution(name).requires or ()]
        waiting += [item.name for item in requirements if not item.marker or item.marker.evaluate({"extra": ""})]
    assert brought >= {"msgspec", "cryptography"}
    assert not brought & HEAVY
    assert len(brought) <= 25


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    script = (ROOT / ".ci/run").read_text("utf-8")
    assert "\nmake test\n" in readme
    assert "\nmake test\n" in script
    assert "set -euo pipefail" in script


def test_every_file_states_the_same_minimum_python_version() -> None:
    lowest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"
    assert PROJECT["tool"]["mypy"]["python_version"] == lowest
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert f"--python-version {lowest} " in makefile
    assert f"sys.version_info < ({lowest.replace('.', ', ')}) and" in makefile
    for page in ("Makefile", "README.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text("utf-8")
        assert set(re.findall(r"\b(?:Python |python3 \(|python )(\d\.\d+) or newer", text)) == {lowest}, page


def test_every_make_target_has_a_description() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^\.PHONY: (\S+)$", makefile, re.M)
    assert "test" in targets
    for target in targets:
        assert re.search(rf"^{target}:.*## \w", makefile, re.M), target


def test_every_environment_is_removed_by_make_clean_and_ignored_by_git() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    made = set(re.findall(r"^[A-Z]+ := (\.\w+)/\.setup$", makefile, re.M)) | {".frameworks"}
    [removed] = re.findall(r"^\trm -rf (.+)$", makefile, re.M)
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert made >= {".venv", ".site", ".proxies"}
    assert made <= set(removed.split())
    assert made <= {line.rstrip("/") for line in ignored}


@pytest.mark.parametrize(
    ("failures", "is_broken", "passes"),
    [(0, False, True), (1, False, True), (MOST, False, True), (MOST + 1, False, False), (1, True, False)],
)
def test_a_limited_number_of_failed_tests_is_run_again(
    tmp_path: Path, failures: int, is_broken: bool, passes: bool
) -> None:
    """Tests that fail only in the first run pass if they are few; a broken one never does."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n", "utf-8")
    (tmp_path / "test_these.py").write_text(
        f"""
import pathlib, pytest

@pytest.mark.parametrize("number", range({MOST + 2}))
def test_it(number):
    was_run = pathlib.Path(f"{{number}}.run")
    is_first = not was_run.exists()
    was_run.write_text("")
    assert number >= {failures} or not (is_first or {is_broken})
""",
        "utf-8",
    )
    first = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=tmp_path, capture_output=True, check=False)
    assert first.returncode == (1 if failures else 0)
    assert (run_again(first.returncode, tmp_path) == 0) is passes


@pytest.mark.parametrize("status", [2, 3, 4, 5, -9])
def test_a_test_run_that_did_not_end_with_failures_is_not_repeated(tmp_path: Path, status: int) -> None:
    """An interrupted run, or one without tests, proves nothing."""
    record = tmp_path / ".pytest_cache/v/cache/lastfailed"
    record.parent.mkdir(parents=True)
    record.write_text('{"test_these.py::test_it": true}', "utf-8")
    assert run_again(status, tmp_path) == status
