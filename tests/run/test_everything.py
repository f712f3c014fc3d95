"""A stdio server made by others with resources, prompts, completion and subscriptions: the proxy changes nothing of
what it answers to an agent that may read and write.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.live_server import ServerFixture
from harness.stdio_proxy import StdioProxy
from ostiary.authorization.catalogue import METHODS, Catalogue
from ostiary.run.probe import probe
from tests.run.proxy_fixtures import live_server, proxy_fixture
from tests.support.sources import ROOT

__all__ = ["live_server"]

EVERYTHING = ROOT / "tests" / "node" / "node_modules" / "@modelcontextprotocol" / "server-everything"
COMMAND = ["node", str(EVERYTHING / "dist" / "index.js"), "stdio"]
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


def converse(talk: Any, listed: dict[str, Any]) -> dict[str, Any]:
    """The answers of the server, by method: the code of an error, or the names in a result."""
    uri, prompt = listed["resources"][0]["uri"], listed["prompts"][0]["name"]
    reference = {"ref": {"type": "ref/prompt", "name": prompt}, "argument": {"name": "x", "value": ""}}
    requests: list[tuple[str, dict[str, Any]]] = [
        ("initialize", HELLO),
        ("ping", {}),
        ("tools/list", {}),
        ("tools/call", {"name": "echo", "arguments": {"message": "a"}}),
        ("resources/list", {}),
        ("resources/templates/list", {}),
        ("resources/read", {"uri": uri}),
        ("resources/read", {"uri": "nowhere:x"}),
        ("resources/subscribe", {"uri": uri}),
        ("resources/unsubscribe", {"uri": uri}),
        ("prompts/list", {}),
        ("prompts/get", {"name": prompt}),
        ("completion/complete", reference),
        ("logging/setLevel", {"level": "error"}),
        ("nope/nope", {}),
        ("roots/list", {}),
    ]
    found: dict[str, Any] = {}
    for number, (method, params) in enumerate(requests):
        talk.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        while (said := talk.hear()).get("id") != number or "method" in said:
            pass  # what the server says by itself
        error = said.get("error")
        found[f"{number} {method}"] = sorted(said["result"]) if error is None else error["code"]
        if method == "initialize":
            talk.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
    return found


class Bare(StdioProxy):
    """The server without a proxy in front."""

    def __init__(self, log: Path) -> None:
        self.log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out, self._held = self.process.stdin, self.process.stdout, b""


@pytest.mark.slow
def test_a_guarded_server_responds_like_the_server_without_a_guard(live_server: ServerFixture, tmp_path: Path) -> None:
    listed = probe(COMMAND, env=os.environ, cwd=None)
    catalogue = Catalogue.from_mcp("files", listed)
    assert set(catalogue.tools) >= {name for name in METHODS if not name.startswith("tasks/")}
    stage = proxy_fixture(live_server, tmp_path, "enforce", "read", "write")
    stage.catalogue(catalogue.render()["tools"])
    with Bare(tmp_path / "bare.log") as talk:
        bare = converse(talk, listed)
    with StdioProxy(tmp_path, stage.plan, command=COMMAND) as talk:
        guarded = converse(talk, listed)
    assert guarded == bare, json.dumps([bare, guarded], indent=1)
    denied = {entry["tool"].partition("/")[2] for entry in stage.entries(count=8) if entry["outcome"] != "allow"}
    assert denied == {"nope/nope", "roots/list"}
