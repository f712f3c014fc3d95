"""What every command stands on: where the server is, who we are, how we print, how we exit.

Exit codes: 0 done, 1 refused by the server, 2 wrong usage, 3 server not reachable, 4 a decision was deny,
5 a verification or a doctor's line failed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import httpx2
from rich.console import Console
from rich.table import Table

from ostiary import ambient
from ostiary.agent import Agent
from ostiary.core.errors import Invalid, Refused, Unavailable

REFUSED, USAGE, UNREACHABLE, DENIED, FAILED = 1, 2, 3, 4, 5

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class ServerRefused(Refused):
    """The server's own words, with its code."""


@dataclass(frozen=True, slots=True)
class Session:
    data_dir: Path | None
    as_json: bool

    @property
    def url(self) -> str:
        """Where the server listens: what `serve` wrote into the data folder, or OSTIARY_URL."""
        if self.data_dir is not None:
            try:
                return str(json.loads((self.data_dir / "server.json").read_text("utf-8"))["url"])
            except FileNotFoundError:
                raise Unavailable(
                    f"no server has been started on {self.data_dir}", hint=f"ostiary serve --data-dir {self.data_dir}"
                ) from None
        if url := ambient.environ("OSTIARY_URL"):
            return url.rstrip("/")
        raise Invalid(
            "which server?", hint="give --data-dir DIR, or set OSTIARY_URL and OSTIARY_CREDENTIAL", code="usage"
        )

    @property
    def credential(self) -> Path:
        if self.data_dir is not None:
            return self.data_dir / "admin.json"
        if path := ambient.environ("OSTIARY_CREDENTIAL"):
            return Path(path)
        raise Invalid("who are you?", hint="set OSTIARY_CREDENTIAL to the path of your admin.json", code="usage")

    def agent(self) -> Agent:
        return Agent.from_credential(self.credential, url=self.url)

    def api(self, method: str, path: str, body: Any = None, *, query: Mapping[str, Any] | None = None) -> Any:
        """Call the admin API; the decoded answer. Raises ServerRefused with the server's words."""
        response = self.raw(method, f"/api/v1{path}", body, query=query)
        return json.loads(response.content) if response.content else None

    def raw(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, Any] | None = None
    ) -> httpx2.Response:
        given = {name: str(value) for name, value in (query or {}).items() if value is not None}
        with self.agent() as agent:
            response = agent.request(
                method, self.url + path, resource=f"{agent.issuer}/api/v1", json=body, params=given or None
            )
        if response.status_code >= 400:
            raise ServerRefused(**_refusal(response))
        return response

    def show(self, value: Any, render: Callable[[Any], None] | None = None) -> None:
        """Print the value as JSON when asked, else for people."""
        if self.as_json or render is None:
            print(json.dumps(value, indent=None if self.as_json else 2, ensure_ascii=False))
        else:
            render(value)


def _refusal(response: httpx2.Response) -> dict[str, str]:
    try:
        body = json.loads(response.content)
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {"message": str(body)}
    return {
        "message": str(body.get("message") or body.get("error_description") or f"HTTP {response.status_code}"),
        "hint": str(body.get("hint", "")),
        "code": str(body.get("error", "refused")),
    }


def table(rows: list[dict[str, Any]], columns: Mapping[str, str], *, empty: str) -> None:
    """A table of `rows`; `columns` maps a key to its heading."""
    if not rows:
        out.print(empty, style="dim")
        return
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for heading in columns.values():
        grid.add_column(heading, overflow="fold")
    for row in rows:
        grid.add_row(*[_cell(row.get(key)) for key in columns])
    out.print(grid)


def facts(value: Mapping[str, Any]) -> None:
    """One thing, a line per fact."""
    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for key, item in value.items():
        if item not in (None, "", [], {}):
            grid.add_row(key, _cell(item))
    out.print(grid)


def _cell(value: Any) -> str:
    from rich.markup import escape

    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return escape(" ".join(value))
    return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def fail(refusal: Refused) -> NoReturn:
    """Say what is wrong and what to do, then exit with the code that tells which kind it is."""
    from rich.markup import escape

    err.print(f"[red]{escape(refusal.code)}[/]: {escape(refusal.message)}")
    if refusal.hint:
        err.print(f"[dim]hint:[/] {escape(refusal.hint)}")
    if isinstance(refusal, Unavailable):
        sys.exit(UNREACHABLE)
    sys.exit(USAGE if refusal.code == "usage" else REFUSED)
