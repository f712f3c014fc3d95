"""Each framework's tests, in the framework's own environment. None is skipped: a missing environment is a failure."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ostiary import adapters
from ostiary.cli.tool_sources import ADAPTERS
from tests.frameworks.environment import FRAMEWORKS, HERE, ROOT, environment, file_of, python

LIMIT_S = 1800
HTTP = {"fastapi"}
"""Frameworks of HTTP servers: their callers are remote, so the contract of tools in the agent's process does not apply.

`make check` checks the types of `ostiary.fastapi`.
"""
LISTED_BY_MCP = {"fastmcp"}
"""Frameworks of MCP servers, whose tools `ostiary protect` lists as it lists those of any MCP server."""
CONTRACT = "from tests.frameworks.contract import *"


def types_of(name: str) -> Path:
    """Return the folder, in the environment of a framework, in which mypy stores the types of the framework and of our
    own modules. The first run begins with the types of `make check`, and each later run with those of the run before.
    """
    folder = Path(python(name)).parents[1] / "mypy"
    if not folder.exists() and (checked := ROOT / ".mypy_cache").is_dir():
        shutil.copytree(checked, copy := folder.with_name("mypy.new"), dirs_exist_ok=True)
        copy.rename(folder)  # after the copy is complete
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_tests_of_an_adapter_pass_with_the_real_framework(name: str) -> None:
    command = [python(name), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "filterwarnings=", file_of(name)]
    run = subprocess.run(
        command, cwd=ROOT, env=environment(name), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    closing = run.stdout.rstrip().rpartition("\n")[2]
    assert re.fullmatch(r"[1-9]\d* passed( in .*|, \d+ warnings? in .*)", closing), f"{closing}: nothing is skipped"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FRAMEWORKS if name not in HTTP])
def test_an_adapter_passes_the_type_check_against_its_framework(name: str) -> None:
    adapter = f"src/ostiary/adapters/{name.replace('-', '_')}.py"
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--python-executable",
        python(name),
        "--cache-dir",
        str(types_of(name)),
        adapter,
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("page", ["index", "how-to/tasks-and-intent", "tutorials/agent-developer"])
def test_a_page_that_lists_the_adapters_lists_every_adapter(page: str) -> None:
    listed = set(re.findall(r"adapters/([\w-]+)\.md\)", (ROOT / f"docs/{page}.md").read_text("utf-8")))
    assert listed | HTTP == set(FRAMEWORKS)


def test_each_adapter_is_in_the_list_of_the_package_and_in_that_of_ostiary_protect() -> None:
    names = {name.replace("-", "_") for name in FRAMEWORKS if name not in HTTP}
    described = re.findall(r"^    (\w+) {2,}", adapters.__doc__ or "", re.MULTILINE)
    assert sorted(described) == sorted(names)
    assert set(ADAPTERS.values()) == names - LISTED_BY_MCP


def test_every_framework_has_an_extra_a_page_and_the_tests_of_the_contract() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert {file.name for file in HERE.glob("test_*.py")} == {"test_each.py"} | {
        file_of(name).rpartition("/")[2] for name in FRAMEWORKS
    }
    for name in FRAMEWORKS:
        assert f"\n{name} = [" in project
        assert (ROOT / f"docs/how-to/adapters/{name}.md").is_file()
        assert name in HTTP or CONTRACT in (ROOT / file_of(name)).read_text("utf-8"), f"{name} has no exceptions"
