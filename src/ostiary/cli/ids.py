"""Ids on the command line: the beginning of an id is enough if only one id begins with it.

A prefix is searched in the list of its kind, with the rights of the caller. The search therefore shows no more than the
list command does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ostiary.cli.usage import Usage
from ostiary.protocol.errors import NotFound

ID_DIGITS = 32
MIN_DIGITS = 4
"""Minimum number of hexadecimal digits of a prefix; shorter text is never taken for a prefix of an id."""
MAX_CANDIDATES = 10
_PREFIX = re.compile(rf"([a-z]{{2,3}})_[0-9a-f]{{{MIN_DIGITS},{ID_DIGITS - 1}}}")
_MEMBERS = ("agent", "approve", "deny", "id", "name", "on_behalf_of", "owner", "parent", "person", "resource", "task")
"""Members of a request body that contain a name or an id. All other members are sent unchanged."""


class IdList(NamedTuple):
    """A list of the admin API in which ids of one kind are searched. `path`: path of the list; `kind`: the member of
    the response with the rows; `member`: the member of a row with the id; `order`: the order of the rows, `short` for a
    list of few pages and `whole` for a list without pages; `query`: parameters of the request.

    `parameters`: names of parameters of commands that name an object of this kind, for the completion of names.
    `is_named`: whether the objects have names. An object of another kind may have a name such as `in_2024`, which looks
    like the prefix of an id of a kind without names. Such text therefore counts as a prefix only behind the path of the
    list of its kind. For a kind with names, the registry refuses names that look like the prefix of an id
    (`ostiaryd.registry.model.names`).
    """

    path: str
    kind: str
    member: str
    order: str = "oldest first"
    query: Mapping[str, str] = {}
    parameters: tuple[str, ...] = ()
    is_named: bool = True


Search = Callable[[IdList, str], list[dict[str, Any]]]
"""Reads the rows of a list that may contain an id with this beginning."""
LISTS = {
    "ag": IdList("/agents", "agents", "agent_id", parameters=("agent",)),
    "ap": IdList(
        "/approvals",
        "approvals",
        "approval_id",
        "newest first",
        {"state": "all"},
        parameters=("approval", "deny", "more"),
    ),
    "co": IdList("/consents", "consents", "consent_id", parameters=("consent",), is_named=False),
    "fi": IdList("/findings", "findings", "finding_id", "newest first", parameters=("finding",), is_named=False),
    "in": IdList("/incidents", "incidents", "incident_id", "newest first", {"state": "all"}, is_named=False),
    "is": IdList("/issuers", "issuers", "issuer_id", "short", parameters=("issuer_id",), is_named=False),
    "pe": IdList(
        "/persons", "persons", "person_id", parameters=("person", "deputy", "member", "on_behalf_of", "owner")
    ),
    "pp": IdList("/peps", "peps", "pep_id", "short"),
    "rs": IdList("/resources", "resources", "resource_id", parameters=("resource",)),
    "st": IdList("/streams", "streams", "stream_id", "short", parameters=("stream_id",), is_named=False),
    "te": IdList("/teams", "teams", "team_id"),
    "tk": IdList("/tasks", "tasks", "task_id", "newest first", parameters=("task", "parent")),
    "wh": IdList("/webhooks", "webhooks", "webhook_id", "short", parameters=("webhook_id",), is_named=False),
    "wl": IdList("/workloads", "workloads", "workload_id", parameters=("workload_id",), is_named=False),
}
"""The list for each kind of id, by the two letters with which the ids begin. A list in the order of its ids is
read from the prefix on; a `short` or `whole` list is read to its end.
"""
_BY_PATH = (
    IdList("/acme/keys", "keys", "kid"),
    IdList("/(agents|resources)/[^/]+/secrets", "secrets", "secret_id", "whole"),
    IdList("/authorities", "authorities", "authority_id", "short"),
    IdList("/clients", "clients", "id"),
    IdList("/connected-accounts", "accounts", "account_id"),
    IdList("/persons/[^/]+/sessions", "sessions", "session_id", "whole"),
)
"""Lists whose ids are searched only if the text stands behind the path of the list. Each path is a regular
expression.
"""


def _list_of(text: str, before: str) -> IdList | None:
    """Return the list in which to search the id that begins with `text`; None if `text` does not have the form of a
    prefix of an id. `before`: the part of the request path that precedes `text`.
    """
    match = _PREFIX.fullmatch(text)
    if match is None:
        return None
    listed, path = LISTS.get(match[1]), before.removeprefix("/api/v1")
    if listed is not None and (listed.is_named or listed.path == path):
        return listed
    return next((one._replace(path=path) for one in _BY_PATH if re.fullmatch(one.path, path)), None)


def resolve_id(search: Search, text: str, *, before: str = "") -> str:
    """Return the id that begins with `text`; text without the form of a prefix is returned unchanged. `before`: the
    part of the request path that precedes `text`.

    Raises Usage if several ids begin with `text`, NotFound if there is none.
    """
    listed = _list_of(text, before)
    if listed is None:
        return text
    rows = [row for row in search(listed, text) if row[listed.member].startswith(text)]
    if not rows:
        raise NotFound(
            f"no id begins with `{text}` among the {listed.kind}", hint=f"list the {listed.kind}, and copy the id"
        )
    if len(rows) > 1:
        shown = [f"{row[listed.member]} {row.get('name', '')}".rstrip() for row in rows[:MAX_CANDIDATES]]
        more = ", ..." if len(rows) > MAX_CANDIDATES else ""
        raise Usage(f"`{text}` is ambiguous: {', '.join(shown)}{more}", hint="write more characters of the id")
    return str(rows[0][listed.member])


def resolve_path(search: Search, path: str) -> str:
    """Return `path` with whole ids in place of prefixes."""
    whole, *segments = path.split("/")
    for text in segments:
        whole = f"{whole}/{resolve_id(search, text, before=whole)}"
    return whole


def resolve_query(search: Search, query: Mapping[str, Any]) -> dict[str, Any]:
    """Return `query` with whole ids in place of prefixes."""
    return {name: _resolve_member(search, name, value) for name, value in query.items()}


def resolve_body(search: Search, body: Any) -> Any:
    """Return the body of a request with whole ids in place of prefixes, in the members that contain names or ids."""
    if not isinstance(body, dict):
        return body
    return {name: _resolve_member(search, name, value) for name, value in body.items()}


def _resolve_member(search: Search, name: str, value: Any) -> Any:
    if name not in _MEMBERS:
        return value
    if isinstance(value, list):
        return [_resolve_member(search, name, item) for item in value]
    return resolve_id(search, value) if isinstance(value, str) else value
