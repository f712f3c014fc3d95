"""The rules that map a request to a tool and its arguments: `METHOD /path/{segment}/{rest*}` to tool."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from ostiary.protocol.errors import Malformed

MAX_PARAMETERS = 100


class Rules:
    """The rules that map an HTTP request to a tool, such as `GET /files/{name}`: the first rule that matches counts.
    `{name}` stands for one segment of the path, `{name*}` for one or more. These parts and the parameters of the query
    are the arguments of the tool.
    """

    def __init__(self, rules: Mapping[str, str]) -> None:
        self._rules = [(*_compile(rule), tool) for rule, tool in rules.items()]

    def __call__(self, scope: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
        for method, pattern, tool in self._rules:
            if method == scope["method"] and (match := pattern.fullmatch(scope["path"])) is not None:
                return tool, _arguments(match.groupdict(), scope["query_string"])
        return None


def _compile(rule: str) -> tuple[str, re.Pattern[str]]:
    method, _, path = rule.partition(" ")
    if not method.isupper() or not path.startswith("/"):
        raise Malformed(f"`{rule}` is not of the form `METHOD /path`", hint="write a rule such as GET /files/{name}")
    parts = re.split(r"(\{[a-z_][a-z0-9_]*\*?\})", path)
    names = [part.strip("{*}") for part in parts[1::2]]
    if len(set(names)) < len(names):
        raise Malformed(f"`{rule}` has two parts of one name", hint="give each part of the path another name")
    return method, re.compile("".join(map(_pattern, parts)))


def _pattern(part: str) -> str:
    if not part.startswith("{"):
        return re.escape(part)
    return f"(?P<{part[1:-2]}>.+)" if part.endswith("*}") else f"(?P<{part[1:-1]}>[^/]+)"


def _arguments(path: dict[str, str], query_string: bytes) -> dict[str, str]:
    """Return the arguments in a path and a query by name. Raises Malformed for a repeated name, because application and
    guard could read different values.
    """
    try:
        query = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError:
        raise Malformed("the query is not ASCII", hint="percent-encode other characters (RFC 3986)") from None
    except ValueError:
        raise Malformed(f"the query has more than {MAX_PARAMETERS} parameters") from None
    names = [*path, *(name for name, _ in query)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise Malformed(f"the parameter `{twice[0][:64]}` was sent twice", hint="send each parameter once")
    return path | dict(query)
