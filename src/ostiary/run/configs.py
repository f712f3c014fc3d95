"""Configurations of agents for MCP servers, and a copy in which each server has a guard in front.

| agent | file | member |
| --- | --- | --- |
| Claude Code | `.mcp.json`; `~/.claude.json`, for the user and for this folder | `mcpServers` |
| Cursor | `.cursor/mcp.json`, `~/.cursor/mcp.json` | `mcpServers` |
| VS Code | `.vscode/mcp.json` | `servers` |
| Claude Desktop | `claude_desktop_config.json` in its folder | `mcpServers` |

A server with a `command` is a stdio server. A server with a `url` (`serverUrl` of Windsurf, `httpUrl` of Gemini CLI) is
a remote server: its transport is streamable HTTP, or HTTP with Server-Sent Events if its `type` is `sse`, or if it has
no `type` and the path of its `url` or `serverUrl` ends in `/sse`. Variables in a command (`${HOME}`) stay: the program
that starts the server expands them, as before. The original files stay unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostiary.cli.files import read_json
from ostiary.cli.usage import Usage

MAX_SERVERS = 64
API = "openapi"
"""The `type` with which a configuration names an HTTP API."""
EGRESS = "egress"
"""The `type` with which a configuration names the egress proxy of the run."""
IN_FOLDER = (".mcp.json", ".cursor/mcp.json", ".vscode/mcp.json")
"""Configurations in the present folder, in the order in which they are read."""
IN_HOME = (
    ".claude.json",
    ".cursor/mcp.json",
    ".config/Claude/claude_desktop_config.json",
    "Library/Application Support/Claude/claude_desktop_config.json",
)
"""Configurations in the home folder of the user, in the order in which they are read after those of IN_FOLDER."""
MEMBERS = ("mcpServers", "servers")
"""Members of a configuration that contain its servers."""
URLS = ("httpUrl", "url", "serverUrl")
"""Members of a remote server's entry that contain its URL. The first member of an entry applies, as in Gemini CLI."""
KINDS = (None, "stdio", "local")
"""The values of `type` for an MCP server that is started by a command (stdio); None stands for a missing `type`."""
_SAFE = frozenset(("env", "headers", "oauth"))
"""Members of a server's entry whose values can be URLs, and from which no client takes the address of the server."""
_WAY = re.compile(r".*(ur[il]|endpoint|address|host|tcp|command|cmd|args|servers)", re.IGNORECASE | re.DOTALL)
"""The name of a member that contains an address or a command of a server, or servers (`amp.mcpServers` of Amp)."""
_ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_NO_LETTER = re.compile(r"[^a-z0-9._-]+")
_SSE_URL = re.compile(r"[^/?#]*//[^?#]*/sse/*([?#].*)?", re.DOTALL)
_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class Server:
    """An MCP server in a configuration of an agent, with its command or its URL. An HTTP API and the egress proxy of a
    run are represented in the same form (`is_api`, `is_egress`).
    """

    name: str
    word: str
    """the server's name, changed so that the name of a resource can contain it"""
    entry: Mapping[str, Any]

    @property
    def url(self) -> str | None:
        """The URL of a remote server or an HTTP API; None for a stdio server and for the egress proxy."""
        url = self.entry.get(_url_member(self.entry))
        return url if isinstance(url, str) and not _is_stdio(self.entry) else None

    def is_sse(self, url: str) -> bool:
        """Return whether a remote server has the transport HTTP with Server-Sent Events (MCP 2024-11-05): its `type` or
        `transport` is `sse`, or it has neither of them and no `httpUrl`, and the path of `url`, its URL with variables
        expanded, ends in `/sse`.
        """
        kind = str(self.entry.get("type", self.entry.get("transport", "")))
        is_unknown = not kind and _url_member(self.entry) != "httpUrl"
        return kind == "sse" or (is_unknown and _SSE_URL.fullmatch(url) is not None)

    @property
    def document(self) -> Mapping[str, Any] | None:
        """The OpenAPI document of an HTTP API; None for an API without a document, and for an MCP server."""
        document = self.entry.get("openapi")
        return document if isinstance(document, dict) else None

    @property
    def is_api(self) -> bool:
        """Return whether the server is an HTTP API, not an MCP server."""
        return self.entry.get("type") == API

    @property
    def is_egress(self) -> bool:
        """Return whether the server is the egress proxy, which forwards requests to all destinations."""
        return self.entry.get("type") == EGRESS

    @property
    def headers(self) -> dict[str, str]:
        """Return the HTTP headers that the agent's configuration states for a remote server."""
        return dict(self.entry.get("headers") or {})

    @property
    def command(self) -> list[str]:
        """The command line with which the server is registered. The only item is the URL for a remote server and an
        HTTP API, and `egress` for the egress proxy.
        """
        if self.is_egress:
            return [EGRESS]
        if self.url is not None:
            return [self.url]
        return [self.entry["command"], *self.entry.get("args", [])]

    @property
    def env(self) -> dict[str, str]:
        """Return the environment variables for the command of the server."""
        return dict(self.entry.get("env") or {})

    @property
    def cwd(self) -> str | None:
        """The working directory of the server's command; None for the directory of the program that starts it."""
        return self.entry.get("cwd")


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of an agent's MCP servers. `text`: the parsed file; `member`: the name of the member that
    contains the servers.
    """

    text: Mapping[str, Any]
    member: str
    stdio: tuple[Server, ...]
    remote: tuple[Server, ...]

    @property
    def servers(self) -> tuple[Server, ...]:
        """Return all MCP servers of the configuration, without servers that the configuration disables."""
        return (*self.stdio, *self.remote)

    def guarded(self, front: Callable[[Server], Sequence[str]], local: Mapping[str, str]) -> dict[str, Any]:
        """Return the configuration with a guard in front of each server. For a stdio server, the words that `front`
        returns are put before the command. For a remote server, the URL is replaced by the URL in `local` for the
        server's name; without such a URL, the server keeps its own. The copy has no disabled server, and no other
        member with servers, an address or a command: a client could go past the guard by them.
        """
        entries = dict[str, dict[str, Any]]()
        for server in self.remote:
            url = local.get(server.name, server.url)
            entries[server.name] = _without_ways(server.entry) | dict.fromkeys(server.entry.keys() & URLS, url)
        for server in self.stdio:
            words = [*front(server), *server.command]
            entries[server.name] = _without_ways(server.entry) | {"command": words[0], "args": words[1:]}
        others = {name: value for name, value in self.text.items() if not _has_way(name, value)}
        return others | {self.member: entries}


def read_config(path: Path) -> Config:
    """Read a configuration of MCP servers. Raises Usage if the file cannot be read or is no such configuration."""
    return parse_config(read_json(path), of=str(path))


def parse_config(text: object, *, of: str) -> Config:
    """Parse a configuration of MCP servers. Raises Usage for an invalid configuration, or for more than
    MAX_SERVERS servers.
    """
    member = next((name for name in MEMBERS if isinstance(text, dict) and isinstance(text.get(name), dict)), None)
    if member is None:
        lacking = " and no ".join(f"`{name}`" for name in MEMBERS)
        raise Usage(f"{of} has no {lacking}", hint="name a configuration of MCP servers")
    assert isinstance(text, dict)
    entries = text[member]
    if len(entries) > MAX_SERVERS:
        raise Usage(f"{of} has {len(entries)} servers", hint=f"name at most {MAX_SERVERS} servers")
    stdio, remote = list[Server](), list[Server]()
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise Usage(
                f"{of}: the server {name!a} is not an object", hint="write an object with a `command` or a `url`"
            )
        if entry.get("disabled") is True:
            continue
        if (kind := entry.get("type")) in (API, EGRESS):
            raise Usage(
                f"{of}: the server {name!a} has the `type` {kind!a}, which is no type of an MCP server",
                hint="leave out `type`; name an HTTP API with --http, and the egress proxy with --egress",
            )
        if _is_stdio(entry):
            stdio.append(_stdio(name, entry, of=of))
        elif isinstance(entry.get(_url_member(entry)), str):
            remote.append(_remote(name, entry, of=of))
        elif "command" in entry:
            raise Usage(
                f"{of}: the server {name!a} has a `command`, and the `type` {entry['type']!a} instead of `stdio`",
                hint="leave out `type`, or give a `url` instead of the `command`",
            )
        else:
            raise Usage(f"{of}: the server {name!a} has neither a `command` nor a `url`", hint="give one of them")
    return Config(text, member, tuple(stdio), tuple(remote))


def check_names(servers: Sequence[Server]) -> None:
    """Check that all servers of a run would get resources with different names. Raises Usage otherwise."""
    for word in dict.fromkeys(one.word for one in servers):
        names = [one.name for one in servers if one.word == word]
        if len(names) > 1:
            raise Usage(
                f"the resources of the servers {', '.join(map(ascii, names))} would get the same name {word!a}",
                hint="rename the servers, so that their names differ in letters or digits, and not only in capitals",
            )


def _without_ways(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a server's entry that contain neither an address nor a command nor servers."""
    return {name: value for name, value in entry.items() if name in _SAFE or not _has_way(name, value)}


def _has_way(name: str, value: object) -> bool:
    """Return whether a member is, or contains, an address or a command of a server, or servers: by the name of a
    member, or by a text that begins like a URL.
    """
    is_address = isinstance(value, str) and _ADDRESS.match(value) is not None
    return is_address or _WAY.fullmatch(name) is not None or any(_has_way(*one) for one in _inner(value))


def _inner(value: object) -> Iterable[tuple[str, object]]:
    """Return the members of an object, and the items of a list with an empty name."""
    if isinstance(value, dict):
        return value.items()
    return (("", one) for one in value) if isinstance(value, list) else ()


def _is_stdio(entry: Mapping[str, Any]) -> bool:
    return "command" in entry and entry.get("type") in KINDS


def _url_member(entry: Mapping[str, Any]) -> str:
    """Return the member of a server's entry that contains the URL; the first of URLS if the entry has none."""
    return next((member for member in URLS if member in entry), URLS[0])


def _stdio(name: str, entry: Mapping[str, Any], *, of: str) -> Server:
    command, args = entry["command"], entry.get("args", [])
    if not isinstance(command, str) or not command:
        raise Usage(f"{of}: the `command` of {name!a} is empty or not a string")
    if not isinstance(args, list) or not all(isinstance(word, str) for word in args):
        raise Usage(f"{of}: the `args` of {name!a} are not a list of strings")
    env, cwd = entry.get("env") or {}, entry.get("cwd")
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise Usage(f"{of}: the `env` of {name!a} is not an object of strings")
    if not isinstance(cwd, (str, type(None))):
        raise Usage(f"{of}: the `cwd` of {name!a} is not a string")
    if any("\0" in text for text in (command, *args, *env, *env.values(), cwd or "")):
        raise Usage(f"{of}: the server {name!a} has a null character in its command, `env` or `cwd`")
    if wrong := [variable for variable in env if "=" in variable]:
        raise Usage(f"{of}: the name {wrong[0]!a} in the `env` of {name!a} has a `=`")
    return Server(name, to_word(name, of=f"{of}: the server"), entry)


def _remote(name: str, entry: Mapping[str, Any], *, of: str) -> Server:
    headers = entry.get("headers") or {}
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise Usage(f"{of}: the `headers` of {name!a} are not an object of strings")
    return Server(name, to_word(name, of=f"{of}: the server"), entry)


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Return the text with the values of `environment` in place of `${NAME}`, `${env:NAME}` and `${NAME:-DEFAULT}`. A
    variable that has neither a value nor a default stays unchanged.
    """
    return _VARIABLE.sub(lambda match: environment.get(match[1], match[2] or match[0]), text)


def to_word(name: str, *, of: str) -> str:
    """Return a name in lower-case ASCII letters, digits, `.`, `_` and `-`. Each run of other characters becomes `-`;
    `.`, `_` and `-` at the ends are removed. Raises Usage for a name without an ASCII letter or digit. `of`: the
    kind of thing that has the name, for the error.
    """
    word = _NO_LETTER.sub("-", name.lower()).strip("._-")
    if not word:
        raise Usage(f"{of} {name!a} has no letter from a to z and no digit in its name", hint="choose another name")
    return word


def find_config(folder: Path, home: Path) -> tuple[object, str]:
    """Return (content, path) of the first configuration that has servers: of a file of IN_FOLDER in `folder`, else of a
    file of IN_HOME in `home`. Raises Usage if no configuration has servers, or if an earlier file is not JSON.
    """
    for place in (*(folder / name for name in IN_FOLDER), *(home / name for name in IN_HOME)):
        if not place.is_file():
            continue
        text = read_json(place)
        if place.name == ".claude.json":
            text = _of_claude(text, folder)
        if isinstance(text, dict) and any(text.get(member) for member in MEMBERS):
            return text, str(place)
    raise Usage(
        "no configuration of MCP servers was found in this folder or in your home folder",
        hint="give --config FILE, JSON with `mcpServers`",
    )


def _of_claude(text: object, folder: Path) -> object:
    """Return the servers that Claude Code has for the user and for this folder. The folder's server replaces
    the user's server with the same name.
    """
    if not isinstance(text, dict):
        return None
    projects = text.get("projects")
    own = projects.get(str(folder)) if isinstance(projects, dict) else None
    members = [part.get("mcpServers") for part in (text, own) if isinstance(part, dict)]
    servers = {name: entry for part in members if isinstance(part, dict) for name, entry in part.items()}
    return {"mcpServers": servers}
