"""HTTP APIs that `ostiary run` guards. Options name the APIs; the agent finds their local addresses in its
environment and in the arguments of its command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ostiary.cli.files import read_json
from ostiary.cli.usage import Usage
from ostiary.run.configs import API, Server, to_word
from ostiary.run.delivery import Delivery


def api_servers(http: Sequence[str], openapi: Sequence[str]) -> tuple[Server, ...]:
    """Return the APIs that `--http NAME=URL` names, with the documents of `--openapi NAME=FILE`. Raises Usage for an
    option of another form, for a repeated name, if no `--http` names the NAME of `--openapi`, or if FILE is not JSON.
    """
    urls, files = _pairs(http, "--http NAME=URL"), _pairs(openapi, "--openapi NAME=FILE")
    if unknown := files.keys() - urls.keys():
        raise Usage(f"--openapi names {min(unknown)!a}, which no --http names", hint=f"--http {min(unknown)}=URL")
    servers = []
    for name, url in urls.items():
        document = {"openapi": read_json(Path(files[name]))} if name in files else {}
        servers.append(Server(name, to_word(name, of="the API"), {"type": API, "url": url, **document}))
    return tuple(servers)


def name_apis(words: Sequence[str], local: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return (words of the command with local addresses in place of `{http:NAME}`, environment variables with these
    addresses). The variable of the API `my-shop` is `MY_SHOP_URL`. `local`: the local address of each API, by its name.
    """
    named = list(words)
    for name, url in local.items():
        named = [word.replace(f"{{http:{name}}}", url) for word in named]
    return named, {f"{to_word(name, of='the API').upper().replace('-', '_')}_URL": url for name, url in local.items()}


def as_it_is(command: Sequence[str]) -> Delivery:
    """Return the Delivery for a command without MCP servers: a function that ignores the path of the configuration, and
    leaves the command and its environment unchanged.
    """
    return lambda _: ([*command], {})


def _pairs(options: Sequence[str], form: str) -> dict[str, str]:
    pairs = dict[str, str]()
    for option in options:
        name, equals, value = option.partition("=")
        if not (name and equals and value):
            raise Usage(f"`{option}` is not of the form {form}")
        if name in pairs:
            raise Usage(f"`{option}` names an API that an earlier option names", hint="give each API another name")
        pairs[name] = value
    return pairs
