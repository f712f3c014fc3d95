"""`ostiary init` and `ostiary protect`: objects are made once, shown with their undo, and widen only when confirmed."""

from __future__ import annotations

import json
import os
import pty
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import Popen

import pytest
from mcp.server.mcpserver import MCPServer

from harness.cli import Commands
from harness.live_server import free_socket, serving
from harness.patience import PATIENCE_S
from harness.server import COMMAND, Server
from ostiary.agent import Agent

APPLICATION = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


def show(request):
    return PlainTextResponse("text")


def change(request):
    return PlainTextResponse("changed")


app = Starlette(routes=[Route("/documents/{name}", show), Route("/documents/{name}", change, methods=["PUT"])])
"""
DOCUMENT = {
    "openapi": "3.1.0",
    "paths": {
        "/items/{item}": {
            "parameters": [{"name": "item", "in": "path", "required": True, "schema": {"type": "integer"}}],
            "get": {"operationId": "read_item"},
            "delete": {"operationId": "delete_item"},
        }
    },
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    before = sys.modules.keys() | set()
    yield tmp_path
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]
    for name in sys.modules.keys() - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def test_plain_functions_in_a_module_without_a_framework_are_refused(ostiary: Commands, folder: Path) -> None:
    program = "def read_file(path: str) -> str:\n    return path\n\ntools = [read_file]\n"
    (folder / "plain_tools.py").write_text(program, "utf-8")
    refused = ostiary("protect", "plain_tools:tools", "--name", "plain", "--uri", "https://plain.example")
    assert (refused.code, "imports no framework" in refused.err) == (2, True), refused.err


def test_a_missing_option_is_named(ostiary: Commands) -> None:
    refused = ostiary("kill", "agent", "writer")
    assert (refused.code, "`--reason` is required" in refused.err) == (2, True), refused.err


def verdicts(steps: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(step["kind"], step["verdict"]) for step in steps]


def test_a_second_run_of_protect_does_not_change_the_created_objects(
    ostiary: Commands, folder: Path, server: Server, name: str
) -> None:
    (folder / "docs_app.py").write_text(APPLICATION, "utf-8")
    short = name[:30].rstrip("-")
    words = (
        "protect",
        "docs_app:app",
        "--name",
        short,
        "--uri",
        f"https://{short}.example",
        "--agent",
        f"{short}-agent",
        "--owner",
        f"{short}-owner",
        "--email",
        "o@example.org",
        "--purpose",
        "reads documents",
    )
    steps = ostiary.json(*words)
    assert verdicts(steps) == [("owner", "create"), ("resource", "create"), ("agent", "create")]
    assert all(step["undo"] for step in steps)
    assert steps[2]["widens"] == f"{short}-agent may use {short}:read"
    tools = ostiary.json("resource", "show", short)["catalogue"]["tools"]
    assert {tool["name"]: tool["effect"] for tool in tools}.keys() == {"show", "change"}
    with Agent.from_credential(folder / f"{short}-agent.json", url=server.url) as agent:
        assert agent.token(resource=f"https://{short}.example")["scope"] == f"{short}:read"
    size = ostiary.json("audit", "search", "--action", "resource.catalogue", "--limit", "100")
    assert set(verdicts(ostiary.json(*words))) == {
        ("owner", "unchanged"),
        ("resource", "unchanged"),
        ("agent", "unchanged"),
    }
    assert ostiary.json("audit", "search", "--action", "resource.catalogue", "--limit", "100") == size


def test_new_tools_and_scopes_need_a_confirmation(ostiary: Commands, folder: Path, name: str) -> None:
    short = name[:30].rstrip("-")
    file = folder / "api.json"
    file.write_text(json.dumps(DOCUMENT), "utf-8")
    words = ("protect", "api.json", "--name", short, "--uri", f"https://{short}.example")
    ostiary.json(*words)
    DOCUMENT_MORE = json.loads(json.dumps(DOCUMENT))
    DOCUMENT_MORE["paths"]["/items/{item}"]["put"] = {"operationId": "change_item"}
    file.write_text(json.dumps(DOCUMENT_MORE), "utf-8")
    refused = ostiary(*words)
    assert refused.code == 2
    assert "confirm with --yes" in refused.err
    assert f"access: agents with the scope {short}:write may call change_item" in refused.out.replace("\n", " ")
    catalogue = ostiary.json("resource", "show", short)["catalogue"]
    assert len(catalogue["tools"]) == 2
    [step] = ostiary.json(*words, "--yes")
    assert step["verdict"] == "change"
    assert len(ostiary.json("resource", "show", short)["catalogue"]["tools"]) == 3
    undone = ostiary(*step["undo"].removeprefix("ostiary ").split())
    assert undone.code == 0, undone.err
    assert ostiary.json("resource", "show", short)["catalogue"]["tools"] == catalogue["tools"]
    agent = ("init", "--agent", f"{short}-agent", "--owner", "ada", "--purpose", "p", "--scope")
    ostiary.json(*agent, f"{short}:read")
    widened = ostiary(*agent, f"{short}:write")
    assert widened.code == 2
    assert ostiary.json("agent", "show", f"{short}-agent")["scopes"] == [f"{short}:read"]
    ostiary.json(*agent, f"{short}:write", "--yes")
    assert ostiary.json("agent", "show", f"{short}-agent")["scopes"] == [f"{short}:read", f"{short}:write"]


def test_the_tools_of_a_running_mcp_server_are_read(ostiary: Commands, name: str, folder: Path) -> None:
    server = MCPServer("notes", log_level="ERROR")
    server.add_tool(lambda text: text, name="keep", description="Keep a text")
    sock, port = free_socket()
    short = name[:30].rstrip("-")
    with serving(server.streamable_http_app(), sock):
        ostiary.json("protect", f"http://127.0.0.1:{port}/mcp", "--name", short)
    shown = ostiary.json("resource", "show", short)
    assert shown["catalogue"]["tools"][0]["name"] == "keep"
    assert shown["uri"] == f"http://127.0.0.1:{port}/mcp"


def test_unwritable_key_files_are_refused_before_any_registration(ostiary: Commands, folder: Path, name: str) -> None:
    short = name[:30].rstrip("-")
    (folder / "api.json").write_text(json.dumps(DOCUMENT), "utf-8")
    words = (
        "protect",
        "api.json",
        "--name",
        short,
        "--uri",
        f"https://{short}.example",
        "--agent",
        short,
        "--owner",
        "ada",
        "--purpose",
        "p",
    )
    refused = ostiary(*words)
    assert (refused.code, "two new keys" in refused.err) == (2, True), refused.err
    (folder / "link.json").symlink_to(folder / "nowhere.json")
    refused = ostiary(*words[:6], "--key", "link.json")
    assert (refused.code, "link.json exists" in refused.err) == (2, True), refused.err
    assert ostiary("resource", "show", short).code != 0
    assert ostiary("agent", "show", short).code != 0
    assert not (folder / "nowhere.json").exists()
    ostiary.json(*words, "--key", "guard.json")
    assert {(folder / file).stat().st_mode & 0o777 for file in ("guard.json", f"{short}.json")} == {0o600}
    assert set(verdicts(ostiary.json(*words))) == {("resource", "unchanged"), ("agent", "unchanged")}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("protect", "nothing"), "is no module:application"),
        (("protect", "no_such_module:app"), "cannot import no_such_module"),
        (("protect", "no_such_module:app"), "run the command in the folder of the module"),
        (("protect", "needs_another:app"), "install `no_such_module` into the environment"),
        (("protect", "json:loads"), "the file of its OpenAPI document"),
        (("protect", "starts_a_guard:app"), "the import of starts_a_guard failed: Invalid: cannot read the credential"),
        (("protect", "starts_a_guard:app"), "start guards and servers in a function"),
        (("protect", "breaks:app"), "the import of breaks failed: AttributeError: 'dict' object has no attribute"),
        (("protect", "json:loads"), "cannot be read"),
        (("protect", "json:nosuch"), "has no `nosuch`"),
        (("protect", "api.json", "--name", "without-uri"), "needs a URI"),
        (("init",), "nothing to register"),
        (("init", "--owner", "nobody-yet"), "needs a mail address"),
        (("init", "--agent", "a-new-agent"), "needs an owner"),
        (("init", "--agent", "a-new-agent", "--owner", "ada"), "needs a purpose"),
    ],
)
def test_invalid_sources_and_missing_options_are_named(
    ostiary: Commands, folder: Path, words: tuple[str, ...], message: str
) -> None:
    (folder / "api.json").write_text(json.dumps(DOCUMENT), "utf-8")
    (folder / "starts_a_guard.py").write_text(
        'from ostiary import Guard\napp = Guard("nowhere.json", spool_dir="spool")\n'
    )
    (folder / "needs_another.py").write_text("import no_such_module\n")
    (folder / "breaks.py").write_text("app = {}.path\n")
    ran = ostiary(*words)
    assert ran.code == 2
    assert message in ran.err


@pytest.mark.parametrize("words", [("init",), ("policy", "put", "policies")])
def test_the_end_of_the_input_at_a_question_changes_nothing(
    server: Server, ostiary: Commands, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/a.cedar").write_text("permit (principal, action, resource);", "utf-8")
    (tmp_path / "policies/a.safeguards.toml").write_text('[leave_out]\nunplanned = "a test"\n', "utf-8")
    before = ostiary.json("audit", "search", "--limit", 1)
    master, slave = pty.openpty()
    command = [str(COMMAND), "--data-dir", str(server.folder), *words]
    process = Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=tmp_path)
    os.close(slave)
    os.write(master, b"\x04")
    shown = b""
    with suppress(OSError):  # the terminal has ended
        while part := os.read(master, 1 << 16):
            shown += part
    os.close(master)
    assert (process.wait(PATIENCE_S), b"Traceback" in shown, b"unplanned" in shown) == (130, False, words != ("init",))
    assert ostiary.json("audit", "search", "--limit", 1) == before


@pytest.mark.slow
def test_init_asks_on_a_terminal(server: Server, tmp_path: Path) -> None:
    (tmp_path / "asked_app.py").write_text(APPLICATION, "utf-8")
    master, slave = pty.openpty()
    process = Popen(
        [COMMAND, "--data-dir", server.folder, "init"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=tmp_path,
        env=os.environ | {"TERM": "dumb", "COLUMNS": "200"},
    )
    os.close(slave)
    answers = [
        "Asked Owner",
        "asked-owner",
        "q",
        "q@example.org",
        "asked",
        "https://asked.example",
        "asked_app:app",
        "asked-agent",
        "",
        "reads",
    ]
    os.write(master, "".join(f"{answer}\n" for answer in answers).encode())
    shown = b""
    try:
        while part := os.read(master, 1 << 16):
            shown += part
    except OSError:  # the terminal has ended
        assert process.wait(PATIENCE_S) == 0, shown
    finally:
        os.close(master)
    assert b"undo: ostiary agent decommission asked-agent" in shown
    for hint in (b"A name has at most 63 characters", b"Write the address as name@example.org", b"Write a few words"):
        assert shown.count(hint) == 1, hint
    assert Commands(server.folder).json("agent", "show", "asked-agent")["scopes"] == ["asked:read"]
    assert (tmp_path / "asked.json").is_file()
