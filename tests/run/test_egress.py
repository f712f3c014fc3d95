"""`ostiary run --egress`: programs call an API whose key they never see."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.egress import VALUE, EgressApi, egress_api
from harness.patience import PATIENCE_S, eventually
from harness.server import COMMAND
from tests.run.stdio_agent import HERE, StdioAgent

PYTHON = """import json, os, requests, sys
url, token = sys.argv[1:]
answers = [requests.get(f"{url}/who"), requests.get(f"{url}/who", headers={"Authorization": f"Bearer {token}"})]
answers.append(requests.post(f"{url}/echo", json={"a": 1}))
print(json.dumps([[one.status_code, one.text, dict(one.headers)] for one in answers] + [dict(os.environ)]))"""
NODE = """const url = new URL(process.argv[2]); const http = require("http"), https = require("https");
const proxy = new URL(process.env.HTTPS_PROXY);
const authorization = "Basic " + Buffer.from(`${proxy.username}:${proxy.password}`).toString("base64");
const connect = http.request({ host: proxy.hostname, port: proxy.port, method: "CONNECT", path: url.host,
  headers: { "Proxy-Authorization": authorization, Host: url.host } });
connect.on("connect", (_, socket) => {
  https.get({ host: url.hostname, port: url.port, path: "/who", socket, agent: false, servername: url.hostname },
    (answer) => answer.on("data", (data) => console.log(answer.statusCode, data.toString())));
}).end();"""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[EgressApi]:
    with egress_api(tmp_path) as api:
        yield api


def prepare(stdio_agent: StdioAgent, api: EgressApi) -> tuple[str, ...]:
    """Store the key of the API and its destination; the options of a run."""
    path, file = f"secret/agents/{stdio_agent.name}/api", stdio_agent.folder / "key.txt"
    file.write_text(VALUE)
    stdio_agent.ostiary("secret", "put", path, f"key=@{file}")
    file.unlink()
    stdio_agent.ostiary(
        "egress",
        "add",
        stdio_agent.name,
        "--origin",
        api.origin,
        "--secret",
        f"{path}#key",
        "--private",
        "--header",
        "Authorization: Bearer {secret}",
    )
    return "--egress", "--upstream-ca", str(api.ca_file)


def test_programs_call_an_api_whose_key_they_never_see(stdio_agent: StdioAgent, api: EgressApi) -> None:
    options = prepare(stdio_agent, api)
    program = stdio_agent.folder / "program.py"
    program.write_text(PYTHON)
    node = stdio_agent.folder / "program.js"
    node.write_text(NODE)
    words = (
        f"{sys.executable} {program} {api.origin} OSTIARY:{stdio_agent.name} > python.out; "
        f"curl -sS {api.origin}/who > curl.out; node {node} {api.origin} > node.out"
    )
    ran = stdio_agent.run((), *options, command=["sh", "-c", words, "{mcp_config}"])
    assert ran.code == 0, ran.err
    first, second, third, variables = json.loads((stdio_agent.folder / "python.out").read_text())
    assert (first[:2], second[:2]) == ([200, "welcome"], [200, "welcome"]), ran.err
    assert (stdio_agent.folder / "curl.out").read_text() == "welcome", ran.err
    assert (stdio_agent.folder / "node.out").read_text().strip() == "200 welcome", ran.err
    echoed = json.loads(third[1])
    assert echoed["headers"]["authorization"] == f"Bearer {'*' * len(VALUE)}"
    assert VALUE not in json.dumps([third, variables])
    assert "OSTIARY_CREDENTIAL" not in variables
    assert "not hidden from the agent" in ran.err
    assert "no request reached the egress proxy" not in ran.err
    assert f"agent `{stdio_agent.name}` lacks the scope" in ran.err
    uses = [
        one
        for one in stdio_agent.ostiary("audit", "search", "--action", "vault.inject")
        if one.get("outcome", "ok") == "ok"
    ]
    mine = [one["detail"] for one in uses if one["detail"]["destination"] == stdio_agent.name]
    assert {(one["method"], one["path"], one["host"]) for one in mine} == {
        ("GET", "/who", f"localhost:{api.port}"),
        ("POST", "/echo", f"localhost:{api.port}"),
    }
    written = [one for one in stdio_agent.server.folder.rglob("*") if one.is_file() and not one.is_symlink()]
    assert not [one for one in written if VALUE.encode() in one.read_bytes()]
    assert VALUE not in ran.err


def test_a_run_reports_that_no_request_of_the_program_reached_the_proxy(
    stdio_agent: StdioAgent, api: EgressApi
) -> None:
    words = f"curl -sS --noproxy '*' --cacert {api.ca_file} {api.origin}/who > curl.out"
    ran = stdio_agent.run((), *prepare(stdio_agent, api), command=["sh", "-c", words, "{mcp_config}"])
    assert (ran.code, "no request reached the egress proxy" in ran.err) == (0, True), ran.err


def test_a_guard_in_another_process_denies_calls_with_the_key(stdio_agent: StdioAgent, api: EgressApi) -> None:
    """The key leaked to the program outside of the proxy."""
    options = prepare(stdio_agent, api)
    leaks = [VALUE, VALUE[::-1], base64.b64encode(f"key={VALUE}".encode()).decode(), "\n".join(VALUE)]
    texts = ["harmless", *leaks, VALUE[:-1]]
    calls = [["write_file", {"path": f"{number}.txt", "text": text}] for number, text in enumerate(texts)]
    file = stdio_agent.folder / "calls.json"
    file.write_text(json.dumps(calls))
    words = (
        f'curl -sS {api.origin}/who > curl.out; {sys.executable} {HERE / "agent_program.py"} "$0" files "$(cat {file})"'
    )
    ran = stdio_agent.run((), *options, command=["sh", "-c", words, "{mcp_config}"])
    assert (stdio_agent.folder / "curl.out").read_text() == "welcome", ran.err
    assert [one["ok"] for one in ran.said] == [True, *[False] * len(leaks), True], ran.err
    assert all("secret" in one["text"] for one in ran.said[1:-1])
    reasons = [[one["code"] for one in entry["reasons"]] for entry in stdio_agent.entries()]
    assert reasons[1:-1] == [["secret_sent"]] * len(leaks)
    found = stdio_agent.ostiary("audit", "search", "--resource", stdio_agent.uri, "--action", "secret.find")
    assert [one["outcome"] for one in found] == ["refused"] * len(leaks)

    def detectors() -> list[str]:
        return [one["detector"] for one in stdio_agent.ostiary("watch", "findings", "--agent", stdio_agent.name)]

    eventually(lambda: "secret_sent" in detectors())
    written = [one for one in stdio_agent.server.folder.rglob("*") if one.is_file() and not one.is_symlink()]
    assert not [one for one in written if VALUE.encode() in one.read_bytes()]


@pytest.mark.parametrize("in_descriptors", [(), ("guard",), ("guard", "admin")])
def test_serve_names_the_keys_that_an_agent_of_its_user_can_read(
    stdio_agent: StdioAgent, in_descriptors: tuple[str, ...]
) -> None:
    name, folder, server = f"{stdio_agent.name[:30]}-{len(in_descriptors)}", stdio_agent.folder, stdio_agent.server
    stdio_agent.ostiary("person", "create", f"owner-{name}", "--email", "ops@shop.example")
    words = ("--owner", f"owner-{name}", "--purpose", "tests", "--generate-key", str(folder / "agent.json"))
    stdio_agent.ostiary("agent", "create", name, *words)
    keys = {"guard": folder / "egress.json", "admin": server.folder / "admin.json"}
    uri = f"http://localhost/egress/{name}"
    stdio_agent.ostiary("resource", "create", f"{name}.egress", "--uri", uri, "--generate-key", str(keys["guard"]))
    with ExitStack() as stack:
        files = {key: stack.enter_context(keys[key].open()).fileno() for key in in_descriptors}
        paths = {key: f"/dev/fd/{files[key]}" if key in files else str(path) for key, path in keys.items()}
        serve = subprocess.Popen(
            [
                COMMAND,
                "egress",
                "serve",
                "--as",
                folder / "agent.json",
                "--guard",
                paths["guard"],
                "--ca-out",
                folder / "ca.pem",
                "--listen",
                "127.0.0.1:0",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=list(files.values()),
            env=os.environ | {"OSTIARY_URL": server.url, "OSTIARY_CREDENTIAL": paths["admin"], "COLUMNS": "500"},
        )
    assert serve.stdout is not None
    ready = serve.stdout.readline()
    serve.terminate()
    _, err = serve.communicate(timeout=PATIENCE_S)
    assert (ready[:21], serve.returncode) == ("ready http://ostiary:", 0), err
    is_readable = [key not in in_descriptors and f"{keys[key]}" in err for key in keys]
    assert is_readable == [key not in in_descriptors for key in keys], err
    assert ("not hidden from the agent" in err) == (len(in_descriptors) < 2 or sys.platform != "linux"), err
