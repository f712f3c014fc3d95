"""The session of one command: the server, the credential, requests, lists, and output."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any

import httpx2
from cyclopts import Parameter

from ostiary import ambient
from ostiary.agent import Agent, ServerRefused
from ostiary.agent.identity import TIMEOUT_S
from ostiary.cli.ids import MAX_CANDIDATES, IdList, resolve_body, resolve_path, resolve_query
from ostiary.cli.output import err, out, remark
from ostiary.cli.tokens import TokenFile
from ostiary.cli.usage import Usage
from ostiary.client import TokenRefused
from ostiary.client.refusals import parse_refusal
from ostiary.keys import load_key
from ostiary.protocol.errors import Unavailable

PAGE = 1000
ALL = 1 << 62
"""The limit with which a list is read completely."""
COUNTED = 10
"""Maximum number of further pages that are read to count the rows that a limit left out."""
MAX_COUNTED = 100_000
"""Maximum number of rows that the server counts for a search of the ledger."""
SILENCE_S = 5
"""Seconds without an answer after which a command warns that the server has not answered."""
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def _singular(kind: str) -> str:
    return f"{kind.removesuffix('ies')}y" if kind.endswith("ies") else kind.removesuffix("s")


class Rows(list[Any]):
    """The first rows of a list. If the list has further rows, `count_rest` returns their number, and whether the number
    is exact.
    """

    count_rest: Callable[[], tuple[int, bool]] | None = None
    kind = "rows"
    """Kind of the rows, a plural noun."""

    @property
    def total(self) -> str:
        """Return the number of all rows of the list as text: `12`, or `at least 12` if they were not all counted."""
        rest, is_exact = self.count_rest() if self.count_rest is not None else (0, True)
        return f"{len(self) + rest}" if is_exact else f"at least {len(self) + rest}"

    def describe(self) -> str:
        """Return the number of rows in words; for a cut list, with the option that shows more."""
        total = self.total
        if total == str(len(self)):
            return f"{total} {self.kind if len(self) != 1 else _singular(self.kind)}"
        more = f"--limit {total} shows all" if total.isdigit() else "--limit shows more"
        return f"{len(self)} of {total}; {more}"

    @property
    def is_cut(self) -> bool:
        """Return whether the list has more rows than these."""
        return self.count_rest is not None and self.total != str(len(self))


class Session:
    """A run of the command line, with the server of the data folder, or with OSTIARY_URL and OSTIARY_CREDENTIAL."""

    def __init__(self, data_dir: Path | None, as_json: bool, *, is_wide: bool = False) -> None:
        self.data_dir, self.as_json = data_dir, as_json
        """`data_dir`: the value of the option; `serve` reads the environment variable itself"""
        out.is_wide = is_wide
        self._token_file: TokenFile | None = None
        self._issuer = ""
        """the issuer that the credential file names; empty if it names none"""

    @property
    def _folder(self) -> Path | None:
        text = ambient.environ("OSTIARY_DATA_DIR")
        if self.data_dir is not None or text is None or ambient.environ("OSTIARY_URL"):
            return self.data_dir
        return Path(text)

    @property
    def is_named(self) -> bool:
        """Return whether an option or the environment names the server. A credential may name the server as well."""
        return self._folder is not None or bool(ambient.environ("OSTIARY_URL"))

    @property
    def url(self) -> str:
        """The URL of the server: the URL that `serve` wrote into the data folder, or OSTIARY_URL. Raises Usage if no
        server is named, or if the file of the data folder is missing or damaged.
        """
        if (folder := self._folder) is not None:
            try:
                return str(json.loads((folder / "server.json").read_text("utf-8"))["url"])
            except FileNotFoundError:
                hint = f"start the server: ostiary serve --data-dir {folder}"
                raise Usage(f"no server has been started with the data folder {folder}", hint=hint) from None
            except (ValueError, KeyError, TypeError):
                raise Usage(
                    f"{folder / 'server.json'} is damaged", hint="restart the server, which writes the file again"
                ) from None
        if url := ambient.environ("OSTIARY_URL"):
            return url.rstrip("/")
        hint = "give --data-dir DIR, or set OSTIARY_URL and OSTIARY_CREDENTIAL"
        raise Usage("no server is named", hint=hint)

    @property
    def credential(self) -> Path:
        """Return the path of the credential file: `admin.json` in the data folder, or OSTIARY_CREDENTIAL. Raises Usage
        if neither is named.
        """
        if (folder := self._folder) is not None:
            return folder / "admin.json"
        if path := ambient.environ("OSTIARY_CREDENTIAL"):
            return Path(path)
        raise Usage("no credential is named", hint="set OSTIARY_CREDENTIAL to the path of your admin.json")

    @cached_property
    def agent(self) -> Agent:
        """Return the agent or person of the credential, which sends the requests of the command. Raises Usage if no
        server or no credential is named, Invalid for an unreadable credential.
        """
        # The URL first: if no server is named, the error must say so, and not that a credential is missing.
        url = self.url
        return self._open(self.credential, url)

    def _open(self, path: Path, url: str) -> Agent:
        credential = load_key(path)
        self._issuer = credential.issuer
        agent = Agent(credential, url=url)
        if credential.secret is None:
            self._token_file = TokenFile(path, agent.client, url=url)
            self._token_file.load()
        return agent

    def act_as(self, credential: Path | None) -> None:
        """Use another credential from now on; None changes nothing. Raises Invalid for an unreadable credential."""
        if credential is not None:
            self.close()
            self.__dict__["agent"] = self._open(credential, self.url)

    def explain(self, refusal: TokenRefused) -> TokenRefused:
        """Return the refusal of a token to show to the user: `refusal`, or if the credential belongs to another server,
        a refusal whose hint names both servers.
        """
        if refusal.code != "invalid_client" or not self._issuer or self._issuer == (server := self.agent.issuer):
            return refusal
        hint = f"the credential is of {self._issuer}, and this server is {server}: name the server of the credential"
        return TokenRefused(refusal.message, hint=hint, code=refusal.code)

    def close(self) -> None:
        """Store the tokens for the next command, and close the connections."""
        try:
            if self._token_file is not None:
                self._token_file.save()
        finally:
            self._token_file = None
            if "agent" in self.__dict__:
                self.agent.close()

    def api(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Call the admin API and return the JSON of the answer; None for an empty answer.

        Raises ServerRefused with the server's message if the server refuses the request, TokenRefused if the server
        refuses a token, Usage for a malformed name in the path, Unavailable if the server does not answer.
        """
        return decoded(self.request(method, f"/api/v1{path}", body, query=query, headers=headers))

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send a request as this agent or person, and return the answer, whatever its status. Raises Usage for a path
        with a malformed name.

        The beginning of an id is enough in the path, the query and the body, if no other id has the same beginning.
        """
        path, body = resolve_path(self._search, path), resolve_body(self._search, body)
        query = resolve_query(self._search, query or {})
        _check_path(path)
        shown = {name: str(value) for name, value in query.items() if value is not None}
        response = self._send(method, path, body, shown, headers)
        if self._is_stale(response):
            response = self._send(method, path, body, shown, headers)
        return response

    def _search(self, listed: IdList, prefix: str) -> list[dict[str, Any]]:
        """Return the rows of a list that may contain the prefix: one page of a list in the order of its ids, else
        all rows.
        """
        query: dict[str, Any] = {**listed.query, "limit": MAX_CANDIDATES + 1}
        match listed.order:
            case "whole":
                return list(self.api("GET", listed.path)[listed.kind])
            case "short":
                return self.pages(listed.path, listed.kind, query=listed.query)
            case "oldest first":
                query["after"] = prefix
            case "newest first":
                query["after"] = prefix + "g"  # greater than any hexadecimal digit
        rows: list[dict[str, Any]] = self.api("GET", listed.path, query=query)[listed.kind]
        return rows

    def _is_stale(self, response: httpx2.Response) -> bool:
        """Return whether the server refused the request because of a token from the file. Such a token may be older
        than a change of the scopes or the state of its agent. The token is removed from the client.

        The caller then repeats the request with a new token. No other refused request is repeated, because each refused
        request leaves an entry in the ledger.
        """
        challenge = response.headers.get("www-authenticate", "")
        lacks_scope = response.status_code == 403 and "insufficient_scope" in challenge
        if self._token_file is None or not (lacks_scope or response.status_code == 401):
            return False
        return self._token_file.forget(self._resource)

    @property
    def _resource(self) -> str:
        return f"{self.agent.issuer}/api/v1"

    def _send(
        self, method: str, path: str, body: Any, query: Mapping[str, str], headers: Mapping[str, str] | None
    ) -> httpx2.Response:
        with self._watch_silence():
            return self.agent.request(
                method, self.url + path, resource=self._resource, json=body, params=query or None, headers=headers
            )

    @contextmanager
    def _watch_silence(self) -> Iterator[None]:
        """Warn on standard error if the server has not answered within SILENCE_S."""
        timer = threading.Timer(SILENCE_S, self._report_silence)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _report_silence(self) -> None:
        self.warn(f"the server at {self.url} has not answered for {SILENCE_S} s; waiting up to {TIMEOUT_S:.0f} s")

    def warn(self, message: str) -> None:
        """Print a warning on standard error, as JSON if the command prints JSON."""
        remark(message, as_json=self.as_json, kind="warning")

    def lines(self, path: str, body: Any) -> Iterator[dict[str, Any]]:
        """Post to the admin API, and yield each line of the streamed answer.

        Raises ServerRefused with the server's message if the server refuses the request, Unavailable if the server does
        not answer or a line reports an error.
        """
        _check_path(path)
        with self._watch_silence():
            resource = self._resource
            stream = self.agent.stream("POST", f"{self.url}/api/v1{path}", resource=resource, json=body)
            response = stream.__enter__()
            if self._is_stale(response):
                stream.__exit__(None, None, None)
                stream = self.agent.stream("POST", f"{self.url}/api/v1{path}", resource=resource, json=body)
                response = stream.__enter__()
        try:
            if response.status_code >= 400:
                response.read()
                decoded(response)
            for text in response.iter_lines():
                line: dict[str, Any] = json.loads(text)
                if "error" in line:
                    raise Unavailable(line["message"], hint=line["hint"], code=line["error"])
                yield line
        finally:
            stream.__exit__(None, None, None)

    def pages(
        self,
        path: str,
        kind: str,
        *,
        limit: int = ALL,
        query: Mapping[str, Any] | None = None,
        cursor: str = "after",
        progress: Callable[[int], None] | None = None,
        counts: bool = False,
    ) -> Rows:
        """Return the first `limit` rows of a list of the admin API. `cursor` names the parameter of the next page.

        `progress` is called with the number of rows after each page. With `counts`, the server counts the rows of a
        list that is longer than `limit`; otherwise further pages are counted, at most COUNTED. Raises Usage for a limit
        below 1.
        """
        if limit < 1:
            raise Usage("`--limit` must be 1 or more", hint="leave `--limit` out for the default")
        rows, after = Rows(), None
        rows.kind = kind
        while len(rows) < limit:
            page = self._page(path, query, min(PAGE, limit - len(rows)), **({} if after is None else {cursor: after}))
            rows += page[kind]
            after = page["next"]
            if progress is not None:
                progress(len(rows))
            if after is None:
                return rows
        pages, size = (1, 1) if cursor == "before" else (COUNTED, PAGE)  # the ledger may have any number of entries
        if counts:
            rows.count_rest = cache(lambda: self._count(path, query, len(rows)))
        else:
            rows.count_rest = cache(
                lambda: self._count_rest(path, kind, query, {cursor: after}, pages=pages, size=size)
            )
        return rows

    def _count(self, path: str, query: Mapping[str, Any] | None, shown: int) -> tuple[int, bool]:
        """Return the number of rows after the `shown` rows, as the server counts them, and whether the number
        is exact.
        """
        total = self._page(path, {**(query or {}), "total": "true"}, 1)["total"]
        return (MAX_COUNTED - shown, False) if total is None else (int(total) - shown, True)

    def _page(self, path: str, query: Mapping[str, Any] | None, limit: int, **cursor: Any) -> Any:
        return self.api("GET", path, query={**(query or {}), "limit": limit, **cursor})

    def _count_rest(
        self, path: str, kind: str, query: Mapping[str, Any] | None, cursor: dict[str, Any], *, pages: int, size: int
    ) -> tuple[int, bool]:
        """Return the number of rows on the next pages, and whether these are all rows."""
        rest, [name] = 0, cursor
        for _ in range(pages):
            page = self._page(path, query, size, **cursor)
            rest, cursor = rest + len(page[kind]), {name: page["next"]}
            if page["next"] is None:
                return rest, True
        return rest, False

    def show(self, value: Any, render: Callable[[Any], None]) -> None:
        """Print the value, as one line of JSON or for people. Print the number of rows of a list on standard error.

        If the output is not for a terminal, the number is printed only if the list has more rows.
        """
        if self.as_json:
            print(json.dumps(value), flush=True)
        else:
            render(value)
        if isinstance(value, Rows) and (value.is_cut or (value and err.is_terminal and not self.as_json)):
            self.remark(value.describe())

    def confirm(self, question: str, *, change: str) -> None:
        """Ask the person at the terminal to confirm `change`. Raises Usage without a terminal or without a yes."""
        if self.as_json or not sys.stdin.isatty():
            raise Usage(f"{change}; nothing changed", hint="confirm with --yes")
        if ask(f"{question} [y/N] ").lower() not in ("y", "yes"):
            raise Usage("not confirmed; nothing changed", hint="answer y, or confirm with --yes")

    def remark(self, message: str) -> None:
        """Print a remark about the output on standard error, as JSON if the command prints JSON."""
        remark(message, as_json=self.as_json)


def ask(prompt: str) -> str:
    """Return the line that the person at the terminal types. Raises KeyboardInterrupt at the end of the input (Ctrl-D),
    as at Ctrl-C.
    """
    try:
        return input(prompt).strip()
    except EOFError:
        raise KeyboardInterrupt from None


def _check_path(path: str) -> None:
    """Check the names and ids in a path. Raises Usage for the first that is malformed."""
    for name in path.split("/")[1:]:
        if not _NAME.fullmatch(name):
            raise Usage(
                f"{name!r} is not a name or an id",
                hint="names begin with a letter or a digit, and consist of a-z, 0-9, `.`, `_` and `-`",
            )


Here = Annotated[Session, Parameter(parse=False)]
"""The type of the parameter through which a command receives the session."""
Word = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""Base64url text as an argument; it may begin with a hyphen."""
Source = Annotated[Path, Parameter(allow_leading_hyphen=True)]
"""A file to read as an argument, or `-` for standard input."""


def decoded(response: httpx2.Response) -> Any:
    """Return the JSON of an answer. Raises ServerRefused with the server's message if the server refuses, Unavailable
    if the server does not answer.
    """
    try:
        value = json.loads(response.content) if response.content else None
    except ValueError:
        message = f"{response.url} answers {response.status_code} with text that is not JSON"
        raise Unavailable(message, hint="check that this is the URL of an Ostiary server") from None
    if response.status_code < 400:
        return value
    refusal = parse_refusal(response.status_code, response.content, kind=ServerRefused)
    if refusal.code == "insufficient_scope":
        refusal.hint = "use a credential with this scope: `ostiary agent allow` and `ostiary role grant` give scopes"
    raise refusal
