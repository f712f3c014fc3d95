"""Asking a server for its tools: a hostile answer ends in a refusal that says what is wrong."""

from __future__ import annotations

import json
import os
import resource
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from harness.patience import eventually
from ostiary.authorization.catalogue import MAX_TOOLS, METHODS, Catalogue, Effect
from ostiary.protocol.errors import Invalid, Malformed, Refused, Unavailable
from ostiary.run.probe import MAX_PAGES, probe
from tests.run.stdio_agent import HERE

SERVER = textwrap.dedent("""
    import json, os, sys, time
    def say(id, **more): print(json.dumps({"jsonrpc": "2.0", "id": id, **more}), flush=True)
    capabilities = {"tools": {}}
    def listed(params): return {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]}
    def greet(id): say(id, result={"protocolVersion": "2025-11-25", "capabilities": capabilities})
    exec(sys.argv[1])
    for line in sys.stdin:
        message = json.loads(line)
        if message["method"] == "initialize": greet(message["id"])
        elif message["method"] == "tools/list": say(message["id"], result=listed(message["params"]))
        elif "id" in message: say(message["id"], error={"code": -32601, "message": "no such method"})
""")


def ask(code: str, *, timeout_s: float = 20.0) -> dict[str, Any]:
    return probe([sys.executable, "-c", SERVER, code], env=os.environ, cwd=None, timeout_s=timeout_s)


def test_the_tools_of_a_server_of_the_official_sdk_become_a_catalogue(tmp_path: Path) -> None:
    said = probe([sys.executable, str(HERE / "files_server.py"), str(tmp_path)], env=os.environ, cwd=None)
    catalogue = Catalogue.from_mcp("files", said)
    effects = {name: tool.effect for name, tool in catalogue.tools.items()}
    assert effects == {
        "read_file": Effect.READ,
        "large": Effect.READ,
        "write_file": Effect.WRITE,
        "delete_file": Effect.DESTROY,
        "resources/read": Effect.READ,
        "resources/subscribe": Effect.READ,
        "subscriptions/listen": Effect.READ,
        "prompts/get": Effect.READ,
    }


def test_pages_of_tools_are_joined_and_other_output_is_ignored() -> None:
    said = ask("""
print("Listening on stdio", flush=True)
say("x", method="sampling/createMessage", params={})
def listed(params):
    page = int(params.get("cursor", 0))
    return {"tools": [{"name": f"t{page}"}], **({"nextCursor": str(page + 1)} if page < 4 else {})}
""")
    assert [tool["name"] for tool in said["tools"]] == ["t0", "t1", "t2", "t3", "t4"]
    assert said["capabilities"] == {"tools": {}}


def test_a_server_without_a_handshake_is_probed_with_server_discover() -> None:
    said = ask("""
def greet(id): say(id, error={"code": -32601, "message": "gone"})
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "server/discover":
        assert message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
        say(message["id"], result={"capabilities": {"tools": {}, "prompts": {}}})
    elif message["method"] == "tools/list": say(message["id"], result=listed(message["params"]))
    elif "id" in message: greet(message["id"])
""")
    assert set(Catalogue.from_mcp("files", said).tools) == {"a", "prompts/get"}


@pytest.mark.parametrize(
    ("code", "kind", "why"),
    [
        ("sys.exit(3)", Unavailable, "ended before it answered"),
        ("time.sleep(60)", Unavailable, "does not answer"),
        ("os.close(0); time.sleep(60)", Unavailable, "does not answer|reads nothing"),
        ('capabilities = "all"', Malformed, "capabilities"),
        ("def greet(id): say(id, error={'code': 1, 'message': 'go away\\x1b[2J'})", Invalid, "no such method"),
        ("def greet(id): say(id)", Invalid, "no such method"),
        ("listed = lambda _: None", Invalid, "answer to tools/list has no object `result`"),
        ("listed = lambda _: {}", Malformed, "no `tools`"),
        ("listed = lambda _: {'tools': {}}", Malformed, "no `tools`"),
        ("listed = lambda _: {'tools': [], 'nextCursor': 5}", Malformed, "nextCursor"),
        ("listed = lambda _: {'tools': [], 'nextCursor': 'x' * 5000}", Malformed, "nextCursor"),
        ("listed = lambda _: {'tools': [], 'nextCursor': 'again'}", Invalid, f"more than {MAX_PAGES} pages"),
        (f"listed = lambda _: {{'tools': [{{'name': 'a'}}] * {MAX_TOOLS + 1}}}", Invalid, "more than 1000 tools"),
        ("print('x' * (9 << 20), flush=True)", Malformed, "a line of more than 8 MiB"),
        ("listed = lambda _: {'tools': [{'name': 'x' * (1 << 20)}], 'nextCursor': 'a'}", Invalid, "more than 16 MiB"),
        ("[print('hello') for _ in range(20_000)]", Invalid, "more than 10000 lines"),
        ('print(\'{"id": 1, "id": 1}\', flush=True)', Malformed, "twice"),
        ("print('{\"a\":' + '[' * 100 + ']' * 100 + '}', flush=True)", Malformed, "nested"),
    ],
)
def test_a_hostile_server_is_refused_with_the_reason(code: str, kind: type[Refused], why: str) -> None:
    with pytest.raises(kind, match=why):
        ask(code, timeout_s=5.0)


def test_processes_that_a_probed_server_has_started_end_with_the_probe(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    ask(f"import subprocess; open({str(pid)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))")
    stat = Path(f"/proc/{pid.read_text()}/stat")
    assert eventually(lambda: not stat.exists() or stat.read_text().split()[2] == "Z")


def test_a_missing_command_is_reported_as_unavailable() -> None:
    with pytest.raises(Unavailable, match="cannot run /nowhere"):
        probe(["/nowhere"], env={}, cwd=None)
    with pytest.raises(Unavailable, match="cannot run true in /nowhere: No such file"):
        probe(["true"], env={}, cwd="/nowhere")


def test_a_failure_that_is_not_of_the_folder_names_no_folder() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(Unavailable) as refusal:
            probe(["true"], env={}, cwd=None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert refusal.value.message == "cannot run true: Too many open files"


def tool(name: Any = "a", **more: Any) -> dict[str, Any]:
    return {"name": name, **more}


DEEP: Any = {}
for _ in range(40):
    DEEP = {"type": "object", "properties": {"a": DEEP}}


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        ([tool(), tool()], "two tools"),
        ([tool("rеad_file")], "the name of the tool"),  # with a Cyrillic letter
        ([tool("read\u200bfile")], "the name of the tool"),
        ([tool("read file")], "the name of the tool"),
        ([tool("a\n")], "the name of the tool"),
        ([tool("")], "the name of the tool"),
        ([tool("x" * 129)], "the name of the tool"),
        ([tool("../../a")], "the name of the tool"),
        ([tool(), tool(5)], "tools\\[1\\].name"),
        (["a"], "tools\\[0\\]"),
        ([tool(inputSchema=[])], "inputSchema"),
        ([tool(inputSchema=DEEP)], "nested|deep"),
        ([tool(inputSchema={"type": "object", "description": "x" * (65 << 10)})], "tool `a`: the schema has"),
        ([tool(inputSchema={"type": "string"})], "tool `a`"),
        ([tool(inputSchema={"$ref": "https://evil.example/schema"})], "tool `a`: a `\\$ref` must be `#`"),
        ([tool(annotations={"readOnlyHint": "yes"})], "readOnlyHint"),
    ],
)
def test_a_hostile_list_of_tools_is_refused(tools: list[Any], why: str) -> None:
    with pytest.raises(Refused, match=why):
        Catalogue.from_mcp("files", {"tools": tools})


def test_a_list_of_the_maximum_number_of_tools_becomes_a_catalogue() -> None:
    tools = [tool(f"t{number}", description=json.dumps(number)) for number in range(MAX_TOOLS)]
    catalogue = Catalogue.from_mcp("files", {"tools": tools, "capabilities": {"prompts": {}}})
    assert len(catalogue.tools) == MAX_TOOLS, "and no room for anything beside it"


def test_resources_templates_and_prompts_are_listed_beside_tools() -> None:
    said = ask("""
capabilities = {"tools": {}, "resources": {"subscribe": True}, "prompts": {}, "completions": {}}
lists = {
    "resources/list": {"resources": [{"uri": "file:///a.txt", "name": "a"}]},
    "prompts/list": {"prompts": [{"name": "greet"}]},
}
def listed(params): return {"tools": []}
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "initialize": greet(message["id"])
    elif message["method"] in lists: say(message["id"], result=lists[message["method"]])
    elif message["method"] == "tools/list": say(message["id"], result={"tools": []})
    elif "id" in message: say(message["id"], error={"code": -32601, "message": "no templates here"})
""")
    tools = Catalogue.from_mcp("files", said).tools
    assert set(tools) == {name for name in METHODS if not name.startswith("tasks/")}
    assert tools["resources/read"].offers == ("file:///a.txt",)
    assert tools["prompts/get"].offers == ("greet",)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_tool_with_the_name_of_a_method_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="method of MCP"):
        Catalogue.from_mcp("files", {"tools": [tool(name)]})
