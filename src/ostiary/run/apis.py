"""HTTP APIs that `ostiary run` guards. Options name the APIs; the agent finds their local addresses in its
environment and in the arguments of its command.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ostiary.cli.files import read_json
from ostiary.cli.usage import Usage
from ostiary.openapi import listing
from ostiary.protocol.errors import Refused
from ostiary.run.configs import API, Server, to_word
from ostiary.run.delivery import Delivery


def api_servers(http: Sequence[str], openapi: Sequence[str]) -> tuple[Server, ...]:
    """Return the APIs that `--http NAME=URL` names, with the documents of `--openapi NAME=FILE`. Raises Usage for an
    option of another form, for a repeated name, for two names with the same variable, if no `--http` names the NAME of
    `--openapi`, or if FILE is not an OpenAPI document.
    """
    urls, files = _pairs(http, "--http NAME=URL"), _pairs(openapi, "--openapi NAME=FILE")
    if unknown := files.keys() - urls.keys():
        raise Usage(f"--openapi names {min(unknown)!a}, which no --http names", hint=f"--http {min(unknown)}=URL")
    servers, names = list[Server](), dict[str, str]()
    for name, url in urls.items():
        if (other := names.setdefault(variable_of(name), name)) != name:
            raise Usage(
                f"the APIs {other!a} and {name!a} have the same variable {variable_of(name)}", hint="rename one of them"
            )
        document = {"openapi": read_document(Path(files[name]))} if name in files else {}
        servers.append(Server(name, to_word(name, of="the API"), {"type": API, "url": url, **document}))
    return tuple(servers)


def variable_of(name: str) -> str:
    """Return the environment variable that has the local address of an API."""
    return re.sub(r"[-.]", "_", to_word(name, of="the API").upper()) + "_URL"


def read_document(path: Path) -> dict[str, Any]:
    """Return the OpenAPI document in a file. Raises Usage for a file that is not such a document."""
    document: dict[str, Any] = read_json(path)
    try:
        listing(document)
    except Refused as refusal:
        raise Usage(f"{path}: {refusal.message}", hint=refusal.hint) from None
    return document


def name_apis(words: Sequence[str], local: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return (words of the command with local addresses in place of `{http:NAME}`, environment variables with these
    addresses). The variable of the API `my-shop` or `my.shop` is `MY_SHOP_URL`. `local`: the local address of each API,
    by its name.
    """
    named = list(words)
    for name, url in local.items():
        named = [word.replace(f"{{http:{name}}}", url) for word in named]
    return named, {variable_of(name): url for name, url in local.items()}


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
            raise Usage(f"`{option}` names an API that an earlier option names", hint="name each API once")
        pairs[name] = value
    return pairs
