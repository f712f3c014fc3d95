"""The TypeScript client: its types accept and refuse, its package is whole, and it calls a real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from harness.patience import PATIENCE_S
from harness.prepared import PreparedServer
from harness.server import Server
from ostiary.keys import save_key
from ostiary.protocol import jose
from tests.support.sources import ROOT

CLIENT = ROOT / "clients/typescript"
PACKAGE = json.loads((CLIENT / "package.json").read_text("utf-8"))


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=CLIENT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the package as npm packs it, unpacked."""
    folder = tmp_path_factory.mktemp("package")
    run("npm", "pack", "--silent", "--offline", "--cache", folder / "cache", "--pack-destination", folder)
    [packed] = folder.glob("*.tgz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def test_the_types_accept_valid_calls_and_reject_invalid_calls() -> None:
    assert run("node_modules/.bin/tsc", "--project", "test") == ""


def test_the_client_lists_each_signature_algorithm_of_the_server() -> None:
    named = re.findall(r"^  (\w+): \{ key:", (CLIENT / "src/signed.ts").read_text("utf-8"), re.M)
    assert {*named, "Ed25519"} == jose.ALGS, "`Ed25519` is another name of `EdDSA`, which credential files do not have"


def test_the_package_has_the_version_of_the_server_and_no_dependency(package: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert (PACKAGE["version"], PACKAGE["license"]) == (project["version"], project["license"])
    assert "dependencies" not in PACKAGE
    files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    modules = {path.stem for path in (CLIENT / "src").glob("*.ts")}
    built = {f"dist/{name}{ending}" for name in modules for ending in (".js", ".d.ts")}
    assert files == built | {"package.json", "README.md"}


def test_the_package_calls_a_server_as_an_administrator(package: Path, tmp_path: Path) -> None:
    with PreparedServer(tmp_path / "server") as server:
        for name in ("olga", "otto"):
            server.ostiary("person", "create", name, "--email", f"{name}@example.org")
        for alg in ("ES256", "EdDSA", "PS256"):
            check_calls(call_server(server, alg, package, tmp_path), alg)


def call_server(server: Server, alg: str, package: Path, folder: Path) -> dict[str, Any]:
    """Call the server as an agent with a key of this algorithm, and return what the program printed."""
    key = jose.generate(alg)
    (folder / "public.jwk").write_text(json.dumps(dict(key.public.jwk)))
    agent = server.ostiary(
        *("agent", "create", f"program-{alg.lower()}", "--owner", "olga", "--purpose", "calls the API"),
        *("--scope", "ostiary:read", "--scope", "ostiary:admin", "--jwk", str(folder / "public.jwk")),
    )
    credential = folder / f"{alg}.json"
    save_key(credential, key, client_id=agent["agent_id"], issuer=server.url)
    environment = {"PACKAGE": str(package), "CREDENTIAL": str(credential), "SCOPE": "ostiary:admin ostiary:read"}
    seen: dict[str, Any] = json.loads(run("node", "test/server.mjs", TEAM=f"team-{alg.lower()}", **environment))
    return seen


def check_calls(seen: dict[str, Any], alg: str) -> None:
    assert seen["team"] == f"team-{alg.lower()}"
    assert seen["members"] == ["olga"]
    assert {"olga", "otto"} <= set(seen["names"])
    assert seen["missing"] == {"status": 404, "code": "not_found", "hasId": True}
    assert seen["conflict"]["status"] == 409
    assert seen["normalised"] == 200, "the proof names the URL as `fetch` sends it"
    assert seen["traversal"] == seen["elsewhere"] == "TypeError"
