"""Configurations of MCP servers as programs have them: found, copied with a guard in front, never changed."""

from __future__ import annotations

import inspect
import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ostiary.cli.run import run
from ostiary.cli.usage import Usage
from ostiary.run import configs
from ostiary.run.apis import api_servers, name_apis
from ostiary.run.configs import (
    IN_FOLDER,
    IN_HOME,
    MAX_SERVERS,
    MEMBERS,
    URLS,
    Config,
    check_names,
    expand,
    find_config,
    parse_config,
    to_word,
)
from ostiary.run.delivery import KNOWN, delivery, source_of
from ostiary.run.enlist import agent_name
from tests.support.sources import ROOT

FILES = {"command": "npx", "args": ["-y", "server", "${HOME}"], "env": {"A": "b"}, "timeout": 1.5, "type": "stdio"}
FAR = {"type": "http", "url": "https://mcp.example/mcp", "headers": {"X": "y"}}


def parse(text: Any) -> Config:
    return parse_config(text, of="mcp.json")


@pytest.mark.parametrize(("member", "url"), [*product(MEMBERS, URLS)])
def test_the_guarded_copy_of_a_configuration_changes_only_its_servers_and_leaves_out_disabled_ones(
    member: str, url: str
) -> None:
    far = {"type": "http", url: FAR["url"], "headers": FAR["headers"]}
    text = {"inputs": [{"id": "x"}], member: {"My Files": FILES, "far": far, "off": {**FILES, "disabled": True}}}
    before = json.dumps(text)
    config = parse(text)
    assert [(server.name, server.word) for server in config.stdio] == [("My Files", "my-files")]
    assert [(server.name, server.url) for server in config.remote] == [("far", FAR["url"])]
    copy = config.guarded(lambda server: ["python", f"{server.word}.plan", "--"], {"far": "http://127.0.0.1:1/x"})
    guarded = {**FILES, "command": "python", "args": ["my-files.plan", "--", "npx", "-y", "server", "${HOME}"]}
    local = {**far, url: "http://127.0.0.1:1/x"}
    assert copy == {**text, member: {"My Files": guarded, "far": local}}
    assert json.dumps(text) == before


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ([], "no `mcpServers`"),
        ({}, "no `mcpServers`"),
        ({"mcpServers": []}, "no `mcpServers`"),
        ({"mcpServers": {"a": "npx"}}, "is not an object"),
        ({"mcpServers": {"a": {}}}, "neither a `command` nor a `url`"),
        ({"mcpServers": {"a": {"type": "egress"}}}, "the server 'a' has the `type` 'egress'"),
        ({"mcpServers": {"a": {"type": "egress", "url": "http://x"}}}, "the server 'a' has the `type` 'egress'"),
        ({"mcpServers": {"a": {"type": "openapi", "url": "http://x"}}}, "the server 'a' has the `type` 'openapi'"),
        ({"mcpServers": {"a": {"type": "openapi", "command": "x"}}}, "the server 'a' has the `type` 'openapi'"),
        ({"mcpServers": {"a": {"command": "x", "type": "http"}}}, "has a `command`, and the `type` 'http' instead"),
        ({"mcpServers": {"a": {"command": "x", "type": ["stdio"]}}}, "has a `command`, and the `type`"),
        ({"mcpServers": {"a": {"command": ["npx"]}}}, "`command`"),
        ({"mcpServers": {"a": {"command": ""}}}, "`command`"),
        ({"mcpServers": {"a": {"command": "x", "args": "y"}}}, "`args`"),
        ({"mcpServers": {"a": {"command": "x", "args": [1]}}}, "`args`"),
        ({"mcpServers": {"a": {"command": "x", "env": {"A": 1}}}}, "`env`"),
        ({"mcpServers": {"a": {"command": "x", "cwd": 1}}}, "`cwd`"),
        ({"mcpServers": {"a": {"command": "x\0"}}}, "a null character"),
        ({"mcpServers": {"a": {"command": "x", "args": ["\0"]}}}, "a null character"),
        ({"mcpServers": {"a": {"command": "x", "env": {"A": "\0"}}}}, "a null character"),
        ({"mcpServers": {"a": {"command": "x", "env": {"A\0": ""}}}}, "a null character"),
        ({"mcpServers": {"a": {"command": "x", "cwd": "\0"}}}, "a null character"),
        ({"mcpServers": {"a": {"command": "x", "env": {"A=B": ""}}}}, "the name 'A=B' in the `env` of 'a' has a `=`"),
        ({"mcpServers": {"?!": {"command": "x"}}}, "no letter from a to z and no digit"),
        ({"mcpServers": {"\u0430": {"command": "x"}}}, "no letter from a to z and no digit"),
    ],
)
def test_a_malformed_configuration_is_refused_with_the_reason(text: Any, why: str) -> None:
    with pytest.raises(Usage, match=why):
        parse(text)


@pytest.mark.parametrize(("extra", "fits"), [(-1, True), (0, True), (1, False)])
def test_a_configuration_has_at_most_the_maximum_number_of_servers(extra: int, fits: bool) -> None:
    text = {"mcpServers": {f"s{number}": FILES for number in range(MAX_SERVERS + extra)}}
    if fits:
        assert len(parse(text).stdio) == MAX_SERVERS + extra
    else:
        with pytest.raises(Usage, match="65 servers"):
            parse(text)


def test_two_servers_of_a_run_cannot_have_one_resource() -> None:
    config = parse(servers(**{"My Files": FILES, "my.files": FILES, "far": FAR}))
    check_names([*config.servers, *api_servers(["shop=http://x"], [])])
    with pytest.raises(Usage, match="'My Files', 'my-files' would get the same name"):
        check_names([*config.servers, *api_servers(["my-files=http://x"], [])])


@pytest.mark.parametrize(("kind", "url"), [(None, None), ("stdio", None), ("local", None), ("http", FAR["url"])])
def test_a_server_with_a_command_and_a_url_is_of_its_type(kind: str | None, url: str | None) -> None:
    entry = {"command": "npx", "url": FAR["url"]} | ({} if kind is None else {"type": kind})
    config = parse(servers(both=entry))
    assert [one.url for one in config.servers] == [url]
    assert [one.name for one in config.remote] == ([] if url is None else ["both"])
    assert config.servers[0].command == ["npx" if url is None else url]


def test_the_guarded_copy_has_no_way_around_the_guard() -> None:
    urls = dict.fromkeys(URLS, FAR["url"])
    both = {"command": "npx", "args": ["x"], "timeout": 1, **urls}
    copy = parse(servers(near=both, far={**both, "type": "http"})).guarded(lambda _: ["guard"], {"far": "http://local"})
    near = {"command": "guard", "args": ["npx", "x"], "timeout": 1}
    assert copy == servers(near=near, far={"type": "http", "timeout": 1, **dict.fromkeys(URLS, "http://local")})


@pytest.mark.parametrize("own", [{"command": "npx"}, {"url": FAR["url"]}])
@pytest.mark.parametrize(
    ("name", "value", "stays"),
    [
        ("sseUrl", "${REMOTE}", False),
        ("server_url", "mcp.example", False),
        ("uri", "x", False),
        ("URL", "x", False),
        ("endpoint", "x", False),
        ("tcp", "mcp.example:80", False),
        ("Command", "npx", False),
        ("cmd", "npx", False),
        ("Args", ["-c", "x"], False),
        ("nested.Servers", {"b": {"package": "b"}}, False),
        ("remote", " HTTPS://mcp.example/mcp", False),
        ("remote", "ws://mcp.example/mcp", False),
        ("remotes", [{"a": ["https://mcp.example/mcp"]}], False),
        ("transport", {"type": "sse", "url": "${REMOTE}"}, False),
        ("transport", {"type": "stdio", "command": "npx"}, False),
        ("transport", "sse", True),
        ("description", "as in http://mcp.example", True),
        ("env", {"API_URL": "https://api.example"}, True),
        ("headers", {"Origin": "https://app.example"}, True),
        ("oauth", {"tokenUrl": "https://login.example"}, True),
        ("excludeTools", ["delete"], True),
        ("timeout", 3, True),
    ],
)
def test_an_entry_of_the_guarded_copy_keeps_no_member_with_an_address_or_a_command(
    own: dict[str, str], name: str, value: Any, stays: bool
) -> None:
    copy = parse(servers(a={name: value, **own})).guarded(lambda _: ["guard"], {"a": "http://local"})
    guarded = {"command": "guard", "args": ["npx"]} if "command" in own else {"url": "http://local"}
    assert copy == servers(a=guarded | ({name: value} if stays else {}))


@pytest.mark.parametrize(
    ("other", "stays"),
    [
        ({"servers": {"b": FAR}}, False),
        ({"MCPServers": {"b": FAR}}, False),
        ({"context_servers": {"b": FAR}}, False),
        ({"projects": {"/work": {"mcpServers": {"b": FAR}}}}, False),
        ({"projects": [{"servers": {}}]}, False),
        ({"amp.mcpServers": {"b": {"package": "b"}}}, False),
        ({"mcp_servers": "other.json"}, False),
        ({"mcp": {"b": {"type": "local", "command": ["npx", "b"]}}}, False),
        ({"mcp": {"b": {"type": "remote", "url": "${REMOTE}"}}}, False),
        ({"extensions": [{"b": {"cmd": "npx"}}]}, False),
        ({"mcp": {"b": "https://mcp.example/mcp"}}, False),
        ({"mcp.serverCommand": "npx b"}, False),
        ({"mcp": {"excluded": ["b"], "serversAreTrusted": True}}, True),
        ({"model": {"name": "large"}, "server": "files", "theme": "dark"}, True),
        ({"inputs": [{"id": "key"}]}, True),
    ],
)
def test_the_guarded_copy_has_no_second_member_with_servers(other: dict[str, Any], stays: bool) -> None:
    copy = parse(servers(a={"command": "npx"}) | other).guarded(lambda _: ["guard"], {})
    assert copy == servers(a={"command": "guard", "args": ["npx"]}) | (other if stays else {})


@pytest.mark.parametrize(
    ("entry", "url", "is_sse"),
    [
        ({}, "http://x/sse", True),
        ({}, "http://x/a/sse/?b=c", True),
        ({}, "http://x/mcp?a=/sse", False),
        ({}, "http://x/mcp#/sse", False),
        ({}, "http://x/asse", False),
        ({}, "http://sse", False),
        ({}, "http://[${HOST}]:8080/mcp", False),
        ({}, "http://[::1/mcp", False),
        ({"type": "http"}, "http://x/sse", False),
        ({"type": "sse"}, "http://x/mcp", True),
        ({"transport": "sse"}, "http://x/mcp", True),
        ({"httpUrl": "${URL}"}, "http://x/sse", False),
        ({"httpUrl": "${URL}", "type": "sse"}, "http://x/sse", True),
    ],
)
def test_the_type_or_else_the_path_of_the_expanded_url_names_the_transport(
    entry: dict[str, str], url: str, is_sse: bool
) -> None:
    [server] = parse(servers(far={**entry, "url": "${URL}"})).remote
    assert server.is_sse(url) is is_sse


def put(path: Path, text: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(text))


def servers(**named: Any) -> dict[str, Any]:
    return {"mcpServers": named}


def test_a_configuration_in_the_folder_precedes_a_configuration_of_the_user(tmp_path: Path) -> None:
    folder, home = tmp_path / "work", tmp_path / "home"
    with pytest.raises(Usage, match="no configuration of MCP servers"):
        find_config(folder, home)
    places = [
        (home / "Library" / "Application Support" / "Claude" / "claude_desktop_config.json", servers(mac=FILES)),
        (home / ".config" / "Claude" / "claude_desktop_config.json", servers(desktop=FILES)),
        (home / ".cursor" / "mcp.json", servers(cursor=FILES)),
        (home / ".claude.json", servers(user=FILES) | {"projects": {str(folder): servers(here=FAR)}}),
        (folder / ".vscode" / "mcp.json", {"servers": {"code": FILES}}),
        (folder / ".cursor" / "mcp.json", servers(cursor=FILES)),
        (folder / ".mcp.json", servers(project=FILES)),
    ]
    assert [path for path, _ in places] == [
        *(home / name for name in reversed(IN_HOME)),
        *(folder / name for name in reversed(IN_FOLDER)),
    ]
    for path, text in places:
        put(path, text)
        found, where = find_config(folder, home)
        assert where == str(path)
        if path.name == ".claude.json":
            assert found == servers(user=FILES, here=FAR)
        else:
            assert found == text
    put(folder / ".mcp.json", {"mcpServers": {}})
    assert find_config(folder, home)[1] == str(folder / ".cursor" / "mcp.json"), "one without servers says nothing"


def test_the_help_and_the_documentation_name_each_configuration_file() -> None:
    page = (ROOT / "docs/how-to/run.md").read_text("utf-8")
    texts = {"help": inspect.getdoc(run) or "", "page": page, "module": configs.__doc__ or ""}
    missing = [(text, name) for text in texts for name in IN_FOLDER if name not in texts[text]]
    missing += [("module", name) for name in IN_HOME if name.rpartition("/")[2] not in texts["module"]]
    missing += [("page", program) for program in KNOWN if f"`{program}`" not in page]
    assert missing == []


def test_variables_in_a_configuration_are_expanded_as_agents_expand_them() -> None:
    values = {"HOME": "/users/ada", "EMPTY": ""}
    for text, filled in {
        "${HOME}/x": "/users/ada/x",
        "${env:HOME}": "/users/ada",
        "${NO}": "${NO}",
        "${NO:-a b}": "a b",
        "$HOME": "$HOME",
        "${EMPTY:-x}": "",
        "${input:key}": "${input:key}",
    }.items():
        assert expand(text, values) == filled


def test_a_command_gets_the_guarded_configuration_in_its_option_or_variable(tmp_path: Path) -> None:
    copy = tmp_path / "copy.json"
    for command, config_env, expected in [
        (("a", "-c={mcp_config}"), None, (["a", f"-c={copy}"], {})),
        (("a", "--mcp-config", "x.json", "-p"), None, (["a", "--mcp-config", str(copy), "-p"], {})),
        (("./a",), "MCP_CONFIG", (["./a"], {"MCP_CONFIG": str(copy)})),
        (
            ("/usr/bin/claude", "-p", "hello"),
            None,
            (["/usr/bin/claude", "--mcp-config", str(copy), "--strict-mcp-config", "-p", "hello"], {}),
        ),
        (
            ("claude", "--", "hello"),
            None,
            (["claude", "--mcp-config", str(copy), "--strict-mcp-config", "--", "hello"], {}),
        ),
        (
            ("claude", "--mcp-config", "x.json", "-p"),
            None,
            (["claude", "--strict-mcp-config", "--mcp-config", str(copy), "-p"], {}),
        ),
        (
            ("claude", "--strict-mcp-config", "--mcp-config", "{mcp_config}"),
            None,
            (["claude", "--strict-mcp-config", "--strict-mcp-config", "--mcp-config", str(copy)], {}),
        ),
        (
            ("claude", "--", "--strict-mcp-config"),
            None,
            (["claude", "--mcp-config", str(copy), "--strict-mcp-config", "--", "--strict-mcp-config"], {}),
        ),
        (
            ("a", "--mcp-config", "x.json", "{mcp_config}"),
            "MCP_CONFIG",
            (["a", "--mcp-config", str(copy), str(copy)], {"MCP_CONFIG": str(copy)}),
        ),
    ]:
        assert delivery(command, config_env=config_env)(copy) == expected


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("cursor", "."), "by which cursor finds its MCP servers"),
        (("a", "--mcp-config"), "has no value"),
        (("a", "--mcp-config=x"), "is written with `=`"),
        (("a", "--mcp-config", "x", "--mcp-config", "y"), "more than once"),
        (("claude", "--mcp-config", "x", "y"), "more than one value"),
    ],
)
def test_a_command_that_would_not_use_the_guarded_configuration_is_refused(command: tuple[str, ...], why: str) -> None:
    with pytest.raises(Usage, match=why):
        delivery(command, config_env=None)


@pytest.mark.parametrize("name", ["", "A=B"])
@pytest.mark.parametrize(
    "command", [("agent",), ("agent", "{mcp_config}"), ("agent", "--mcp-config", "x"), ("claude",)]
)
def test_an_option_that_names_no_variable_is_refused(name: str, command: tuple[str, ...]) -> None:
    with pytest.raises(Usage, match="is not the name of a variable"):
        delivery(command, config_env=name)


def test_the_source_is_the_configuration_that_the_command_would_have_used(tmp_path: Path) -> None:
    for name in ("option", "variable", "given"):
        put(tmp_path / f"{name}.json", servers(**{name: FILES}))

    def source(*command: str, config: str | None = None, variable: str | None = None) -> list[str]:
        file = None if config is None else tmp_path / config
        found = source_of(command, config=file, config_in_variable=variable)
        return [server.name for server in found.stdio]

    option = ("a", "--mcp-config", str(tmp_path / "option.json"))
    assert source(*option, variable=str(tmp_path / "variable.json")) == ["option"]
    assert source("a", variable=str(tmp_path / "variable.json")) == ["variable"]
    assert source(*option, config="given.json") == ["given"]
    assert source("a", "--mcp-config", json.dumps(servers(inline=FILES))) == ["inline"]
    assert source("a", "--mcp-config", "{mcp_config}", variable=str(tmp_path / "variable.json")) == ["variable"]
    with pytest.raises(Usage, match="the value of --mcp-config: not JSON"):
        source("a", "--mcp-config", "{")
    with pytest.raises(Usage, match="twice"):
        source("a", "--mcp-config", '{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}')
    with pytest.raises(Usage, match="nested too deeply"):
        source("a", "--mcp-config", '{"a": ' + "[" * 32 + "]" * 32 + "}")
    (tmp_path / "given.json").write_text('{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}')
    with pytest.raises(Usage, match="twice"):
        source("a", config="given.json")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("claude -p hello", "claude"),
        ("python my_agent.py {mcp_config}", "my_agent"),
        ("/usr/bin/python3.12 -m bot", "bot"),
        ("uv run crew.py", "crew"),
        ("python main.py", "work"),
        ("./bots/reporter/main.py", "reporter"),
        ("node index.js", "work"),
        ("./My-Agent", "my-agent"),
        ("run", "work"),
        ("exec --fast", "exec"),
        ("uv run", "uv"),
    ],
)
def test_an_agent_is_named_after_its_program(command: str, name: str) -> None:
    assert agent_name(command.split(), Path("/users/ada/work")) == name


def test_the_name_of_a_server_is_converted_to_a_valid_name_or_refused() -> None:
    assert to_word("GitHub (work)", of="x") == "github-work"
    with pytest.raises(Usage):
        to_word("日本", of="x")


def test_the_variable_of_an_api_has_letters_digits_and_underscores() -> None:
    local = {"my-shop.v2": "http://127.0.0.1:1", "Ärzte": "http://127.0.0.1:2"}
    words, variables = name_apis(["call", "{http:my-shop.v2}/items"], local)
    assert words == ["call", "http://127.0.0.1:1/items"]
    assert variables == {"MY_SHOP_V2_URL": "http://127.0.0.1:1", "RZTE_URL": "http://127.0.0.1:2"}


def test_two_apis_with_the_same_variable_are_refused() -> None:
    assert len(api_servers(["a-b=http://x", "a-c=http://y"], [])) == 2
    with pytest.raises(Usage, match="'a-b' and 'a.b' have the same variable A_B_URL"):
        api_servers(["a-b=http://x", "a.b=http://y"], [])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "the OpenAPI document is not a JSON object"),
        ("null", "the OpenAPI document is not a JSON object"),
        ("{}", "the OpenAPI document has no `paths`"),
        ('{"paths": {"/a": []}}', "the path '/a' is not a JSON object"),
    ],
)
def test_the_refusal_of_an_openapi_document_names_the_file_and_the_fault(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "api.json"
    file.write_text(text)
    with pytest.raises(Usage) as refusal:
        api_servers(["shop=http://x"], [f"shop={file}"])
    assert refusal.value.message == f"{file}: {why}"
    file.write_text('{"paths": {}}')
    assert api_servers(["shop=http://x"], [f"shop={file}"])[0].document == {"paths": {}}
