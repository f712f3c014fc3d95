"""A registered stdio server, and the proxy before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.live_server import ServerFixture
from harness.patience import eventually
from harness.server import Server
from harness.stdio_proxy import TOOLS, StdioProxy
from ostiary.run.plan import Plan


@pytest.fixture(scope="module")
def live_server(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFixture]:
    live_server = ServerFixture(server, tmp_path_factory.mktemp("keys"))
    yield live_server
    live_server.admin.close()


@dataclass(frozen=True, slots=True)
class ProxyFixture:
    """An agent and a stdio server that are registered, and how to run a proxy between them."""

    live_server: ServerFixture
    folder: Path
    agent: str
    resource: str
    plan: Plan

    @contextmanager
    def talk(self, *, is_patient: bool = True, **changed: Any) -> Iterator[StdioProxy]:
        plan = msgspec.structs.replace(self.plan, **changed)
        with StdioProxy(self.folder, plan, is_patient=is_patient) as talk:
            yield talk

    def catalogue(self, tools: list[dict[str, Any]]) -> None:
        body = {"catalogue": {"resource": self.resource, "tools": tools}}
        self.live_server.api("PUT", f"/resources/{self.resource}/catalogue", body)

    def entries(self, action: str = "tool.call", count: int = 1) -> list[dict[str, Any]]:
        """Wait for at least `count` entries about the resource; return them, the oldest first."""

        def found() -> list[dict[str, Any]] | None:
            entries = self.live_server.entries(resource=self.plan.uri, action=action)
            return entries[::-1] if len(entries) >= count else None

        return eventually(found)  # type: ignore[no-any-return]

    def outcome_of(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Return the outcome of a call, from the entry of the call or from a separate entry."""

        def found() -> dict[str, Any] | None:
            if "result" in entry:
                return entry["result"]  # type: ignore[no-any-return]
            late = self.live_server.entries(resource=self.plan.uri, action="tool.result")
            return next((one["result"] for one in late if one["detail"]["call"] == entry["detail"]["number"]), None)

        return eventually(found)  # type: ignore[no-any-return]


def proxy_fixture(live_server: ServerFixture, folder: Path, mode: str, *scopes: str) -> ProxyFixture:
    uri = f"http://localhost/stdio/{folder.name}/{mode}"
    resource, guard = live_server.resource(uri, TOOLS)
    agent, credential = live_server.agent(*[f"{resource}:{scope}" for scope in scopes])
    live_server.api("PUT", f"/resources/{resource}/mode", {"mode": mode})
    plan = Plan(
        server="files",
        agent=str(credential),
        guard=str(guard),
        uri=uri,
        spool=str(folder / "spool"),
        mode=str(folder / "mode"),
        url=live_server.server.url,
    )
    return ProxyFixture(live_server, folder, agent, resource, plan)
