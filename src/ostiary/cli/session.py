"""What every command stands on: where the server is, who we are, and how it ends.

Exit codes, for scripts:

      0  done
      1  refused by the server, whose code, message and hint are on standard error
      2  wrong usage: an option, a file or a setting is not what it must be
      3  the server does not answer, or cannot
      4  `decide`: the decision is deny
      5  `audit verify`, `doctor`: something is wrong; `revoke`: a guard has not confirmed; `whatif`: nothing would
         change, but not all could be replayed
      6  `whatif`: something would change
    130  interrupted
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import httpx2
from cyclopts import Parameter

from ostiary import ambient
from ostiary.agent import Agent, ServerRefused
from ostiary.cli.paper import err
from ostiary.client.refusals import parse_refusal
from ostiary.keys import load_key
from ostiary.protocol.errors import Invalid, Unavailable

REFUSED, USAGE, UNREACHABLE, DENIED, FAILED, CHANGES, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130
PAGE = 1000
ALL = 1 << 62
"""rows: as many as there are"""
COUNTED = 10
"""Pages of a list that are read to count what was not asked for."""
_PATH = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")


class Usage(Invalid):
    """What was asked for on the command line cannot be done."""

    code = "usage"


class Rows(list[Any]):
    """Rows of a list. Where there are more, `count_rest` returns how many, and whether that is all of them."""

    count_rest: Callable[[], tuple[int, bool]] | None = None

    def describe_cut(self) -> str:
        """Say how many rows there are and what shows them; empty where these are all."""
        if self.count_rest is None:
            return ""
        rest, is_all = self.count_rest()
        total = len(self) + rest
        if is_all:
            return f"{len(self)} of {total}; --limit {total} shows all" if rest else ""
        return f"{len(self)} of at least {total}; --limit shows more"


class Session:
    """One run of the command line. The server is that of the data folder, or OSTIARY_URL with OSTIARY_CREDENTIAL."""

    def __init__(self, data_dir: Path | None, as_json: bool) -> None:
        self.data_dir, self.as_json = data_dir, as_json
        """`data_dir` as it was given; `serve` reads the environment for itself"""

    @property
    def _folder(self) -> Path | None:
        text = ambient.environ("OSTIARY_DATA_DIR")
        if self.data_dir is not None or text is None or ambient.environ("OSTIARY_URL"):
            return self.data_dir
        return Path(text)

    @property
    def is_named(self) -> bool:
        """Return whether anybody said which server; a credential may know it as well."""
        return self._folder is not None or bool(ambient.environ("OSTIARY_URL"))

    @property
    def url(self) -> str:
        """Where the server listens: what `serve` wrote into the data folder, or OSTIARY_URL. Raises Usage."""
        if (folder := self._folder) is not None:
            try:
                return str(json.loads((folder / "server.json").read_text("utf-8"))["url"])
            except FileNotFoundError:
                hint = f"ostiary serve --data-dir {folder}"
                raise Usage(f"no server was ever started on {folder}", hint=hint) from None
            except (ValueError, KeyError, TypeError):
                raise Usage(f"{folder / 'server.json'} is damaged", hint="starting the server writes it anew") from None
        if url := ambient.environ("OSTIARY_URL"):
            return url.rstrip("/")
        raise Usage("which server?", hint="give --data-dir DIR, or set OSTIARY_URL and OSTIARY_CREDENTIAL")

    @property
    def credential(self) -> Path:
        """The administrator's credential file. Raises Usage."""
        if (folder := self._folder) is not None:
            return folder / "admin.json"
        if path := ambient.environ("OSTIARY_CREDENTIAL"):
            return Path(path)
        raise Usage("who are you?", hint="set OSTIARY_CREDENTIAL to the path of your admin.json")

    @cached_property
    def agent(self) -> Agent:
        """We ourselves. Raises Invalid."""
        url = self.url  # first: without a server no credential is missing
        return Agent(load_key(self.credential), url=url)

    def act_as(self, credential: Path | None) -> None:
        """From now on we are whose credential that is, if one is given. Raises Invalid."""
        if credential is not None:
            self.close()
            self.__dict__["agent"] = Agent(load_key(credential), url=self.url)

    def close(self) -> None:
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
        """Call the admin API; the decoded answer. Raises ServerRefused with the server's words, Unavailable."""
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
        """Send a request as ourselves; whatever is answered. Raises Usage for a path that holds what is no name."""
        _check_path(path)
        given = {name: str(value) for name, value in (query or {}).items() if value is not None}
        resource = f"{self.agent.issuer}/api/v1"
        return self.agent.request(
            method, self.url + path, resource=resource, json=body, params=given or None, headers=headers
        )

    def lines(self, path: str, body: Any) -> Iterator[dict[str, Any]]:
        """Post to the admin API, and read the lines of the answer while they come; an error in them is raised.

        Raises ServerRefused with the server's words, Unavailable.
        """
        _check_path(path)
        url, resource = f"{self.url}/api/v1{path}", f"{self.agent.issuer}/api/v1"
        with self.agent.stream("POST", url, resource=resource, json=body) as response:
            if response.status_code >= 400:
                response.read()
                decoded(response)
            for line in response.iter_lines():
                said: dict[str, Any] = json.loads(line)
                if "error" in said:
                    raise Unavailable(said["message"], hint=said["hint"], code=said["error"])
                yield said

    def pages(
        self, path: str, kind: str, *, limit: int = ALL, query: Mapping[str, Any] | None = None, cursor: str = "after"
    ) -> Rows:
        """Return the first `limit` rows of a list of the admin API; `cursor` names the parameter of the next page.

        Raises Usage for a limit below 1.
        """
        if limit < 1:
            raise Usage("--limit is 1 or more")
        found, after = Rows(), None
        while len(found) < limit:
            page = self._page(path, query, min(PAGE, limit - len(found)), **({} if after is None else {cursor: after}))
            found += page[kind]
            after = page["next"]
            if after is None:
                return found
        pages, size = (1, 1) if cursor == "before" else (COUNTED, PAGE)  # the ledger may have any number of entries
        found.count_rest = lambda: self._count_rest(path, kind, query, {cursor: after}, pages=pages, size=size)
        return found

    def _page(self, path: str, query: Mapping[str, Any] | None, limit: int, **cursor: Any) -> Any:
        return self.api("GET", path, query={**(query or {}), "limit": limit, **cursor})

    def _count_rest(
        self, path: str, kind: str, query: Mapping[str, Any] | None, cursor: dict[str, Any], *, pages: int, size: int
    ) -> tuple[int, bool]:
        """Return how many rows follow on so many pages, and whether that is all of them."""
        rest, [name] = 0, cursor
        for _ in range(pages):
            page = self._page(path, query, size, **cursor)
            rest, cursor = rest + len(page[kind]), {name: page["next"]}
            if page["next"] is None:
                return rest, True
        return rest, False

    def show(self, value: Any, render: Callable[[Any], None]) -> None:
        """Print the value, as one line of JSON or for people. Where rows are cut, standard error says so."""
        if self.as_json:
            print(json.dumps(value), flush=True)
        else:
            render(value)
        if isinstance(value, Rows) and (cut := value.describe_cut()):
            err.print(cut, style="dim", markup=False)


def _check_path(path: str) -> None:
    """Raises Usage for a path that holds what is no name."""
    if not _PATH.fullmatch(path):
        raise Usage(f"{path.rpartition('/')[2]!r} is no name or id", hint="letters, digits, `.`, `_` and `-`")


Here = Annotated[Session, Parameter(parse=False)]
"""The parameter by which a command gets the session."""
Word = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""Base64url, which may begin with a hyphen."""
Source = Annotated[Path, Parameter(allow_leading_hyphen=True)]
"""A file to read, or `-`."""


def decoded(response: httpx2.Response) -> Any:
    """What was answered. Raises ServerRefused with the server's words, Unavailable."""
    try:
        said = json.loads(response.content) if response.content else None
    except ValueError:
        said = f"{response.url} answers {response.status_code} with what is no JSON"
        raise Unavailable(said, hint="is this the URL of the server?") from None
    if response.status_code < 400:
        return said
    raise parse_refusal(response.status_code, response.content, kind=ServerRefused)
