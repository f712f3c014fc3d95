"""The OpenAPI document is valid and true: schemathesis calls each operation of a real server."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx2

from harness.live_server import ServerFixture, own_server
from ostiary.keys import save_key
from ostiary.protocol import jose

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BIN = ROOT / ".openapi" / "bin"
EXAMPLES = 4 * int(os.environ.get("OSTIARY_FAULT_ROUNDS", "1"))
"""Generated requests to each operation, valid and invalid ones."""


def prepare(server: ServerFixture, folder: Path) -> dict[str, Any]:
    """Register a caller of each role and an object of each kind; return the settings of the hooks."""
    owner = server.owner()
    _, agent = server.agent("files:read", owner=owner)
    _, receiver = server.agent("ostiary:ssf.read", "ostiary:ssf.manage", owner=owner)
    resource, guard = server.resource("https://files.example.org/mcp")
    victim, _ = server.agent(owner=owner)
    key = jose.generate("ES256")
    made = server.api("POST", "/persons", {"name": "ada", "jwk": dict(key.public.jwk)})
    person = folder / "ada.json"
    save_key(person, key, client_id=made["person_id"], issuer=server.server.url)
    server.api("POST", "/teams", {"name": "ops", "members": [owner]})
    server.api("POST", "/peps", {"name": "gateway", "networks": ["127.0.0.1"]})
    task = server.api("POST", "/tasks", {"purpose": "a test", "agent": victim})
    sets = server.api("GET", "/policies")["policies"]
    return {
        "issuer": server.server.url,
        "credentials": {
            "administrator": str(server.server.folder / "admin.json"),
            "agent": str(agent),
            "receiver": str(receiver),
            "guard": str(guard),
            "person": str(person),
        },
        "names": {
            "agents.name": victim,
            "persons.name": "ada",
            "teams.name": "ops",
            "person": owner,
            "resources.name": resource,
            "resource": resource,
            "peps.name": "gateway",
            "tasks.id": task["task_id"],
            "hash": sets[0]["hash"],
            "index": "0",
        },
    }


def test_each_operation_answers_as_the_document_states(tmp_path: Path) -> None:
    with own_server(tmp_path) as server:
        settings = tmp_path / "openapi.json"
        settings.write_text(json.dumps(prepare(server, tmp_path)))
        url = f"{server.server.url}/openapi.json"
        run = subprocess.run(
            [
                *(BIN / "st", "--config-file", HERE / "schemathesis.toml", "run", url),
                *("--phases", "examples,fuzzing"),
                *("-n", str(EXAMPLES), "--seed", "7", "--generation-deterministic", "--no-shrink"),
                *("--suppress-health-check", "all", "--continue-on-failure"),
                *("--request-timeout", "60", "--warnings", "off", "--no-color"),
            ],
            cwd=tmp_path,
            env={
                **os.environ,
                "SCHEMATHESIS_HOOKS": "tests.openapi.hooks",
                "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
            }
            | {"OSTIARY_OPENAPI": str(settings)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert run.returncode == 0, run.stdout[-200000:] + run.stderr


def test_the_document_is_valid_openapi(tmp_path: Path) -> None:
    with own_server(tmp_path) as server:
        document = tmp_path / "openapi.json"
        document.write_bytes(httpx2.get(f"{server.server.url}/openapi.json").content)
    validation = subprocess.run([BIN / "openapi-spec-validator", document], capture_output=True, text=True, check=False)
    assert validation.returncode == 0, validation.stdout + validation.stderr
