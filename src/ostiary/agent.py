"""An agent's identity in three lines:

    with Agent.from_credential("planner.json") as agent:
        with agent.task("summarise the third quarter", scopes=["files:read"]) as task:
            report = task.get("https://files.example/reports/q3.txt")

Tokens are got, kept, bound and renewed as they are needed; a task is ended as done, or as failed when its block raises.
`AsyncAgent` is the same with `await` and `async with`. `agent.auth(...)` serves any other client of httpx2, such as the
one inside an MCP client.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx2
import msgspec

from ostiary import ambient
from ostiary.client import Auth, Client, Flow, Target, arun, run
from ostiary.core import canonical
from ostiary.core.errors import Forbidden, Invalid, Malformed, Refused, Unavailable
from ostiary.keys import Credential, load_key

T = TypeVar("T")
log = logging.getLogger("ostiary.agent")
TIMEOUT_S = 30.0
DEFAULT_TTL_S = 3600


class ServerRefused(Forbidden):
    """The server's own words, with its code and its hint."""


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A declared task as the server knows it."""

    id: str
    facts: Mapping[str, Any]


class _Identity:
    """What both agents share: who it is, and the requests for tasks."""

    def __init__(
        self,
        credential: Credential,
        *,
        url: str | None = None,
        now: Callable[[], int] = ambient.now,
        random: Callable[[int], bytes] = ambient.random,
    ) -> None:
        if not credential.client_id or not (url or credential.issuer):
            raise Invalid("the credential does not say whose it is and where", hint="give `client_id` and `url`")
        self._url = (url or credential.issuer).rstrip("/")
        self._client = Client(credential, url=self._url, now=now, random=random)

    @property
    def client_id(self) -> str:
        return self._client.credential.client_id

    def auth(self, resource: str | None = None, scope: str | None = None, *, task: str | None = None) -> Auth:
        """For `httpx2.Client(auth=..)` and `httpx2.AsyncClient(auth=..)`; without a resource, servers say theirs."""
        return Auth(self._client, Target(resource, scope, task))

    def _token(self, target: Target) -> Flow[dict[str, Any]]:
        token = yield from self._client.token(target)
        return token.answer

    def _call(self, method: str, path: str, body: Mapping[str, Any]) -> Flow[Any]:
        """Our own API; its answer. Raises ServerRefused, Unavailable."""
        metadata = yield from self._client.discover()
        request = httpx2.Request(method, f"{self._url}/api/v1{path}", json=dict(body))
        response = yield from self._client.send(request, Target(f"{metadata.issuer}/api/v1"))
        if response.status_code >= 400:
            raise _refusal(response)
        return msgspec.json.decode(response.content)

    def _start(
        self,
        purpose: str,
        *,
        scopes: Iterable[str] | None,
        bounds: Iterable[Mapping[str, Any]] | None,
        on_behalf_of: str | None,
        ttl: int,
    ) -> Flow[TaskInfo]:
        body: dict[str, Any] = {"purpose": purpose, "ttl": ttl}
        body |= {} if scopes is None else {"scopes": list(scopes)}
        body |= {} if bounds is None else {"bounds": list(bounds)}
        body |= {} if on_behalf_of is None else {"on_behalf_of": on_behalf_of}
        started = yield from self._call("POST", "/tasks", body)
        return TaskInfo(started["task_id"], started)

    def _renew(self, task: str, ttl: int) -> Flow[Any]:
        return self._call("POST", f"/tasks/{task}/renew", {"ttl": ttl})

    def _end(self, task: str, outcome: str) -> Flow[Any]:
        return self._call("POST", f"/tasks/{task}/end", {"outcome": outcome})


class Agent(_Identity):
    """An agent for blocking code. Not for two threads at once."""

    def __init__(self, credential: Credential, *, url: str | None = None, **clock: Any) -> None:
        super().__init__(credential, url=url, **clock)
        self._http = httpx2.Client(timeout=TIMEOUT_S)

    @classmethod
    def from_credential(cls, path: Path | str, *, url: str | None = None, client_id: str | None = None) -> Agent:
        """From the file that `ostiary agent create --generate-key` wrote. Raises Invalid.

        `url`: where the server is reached, if not under its issuer's name.
        """
        return cls(_named(load_key(path), client_id, url), url=url)

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _run(self, flow: Flow[T]) -> T:
        return run(self._http, flow)

    @property
    def issuer(self) -> str:
        """The issuer identifier, as the server's metadata has it."""
        return self._run(self._client.discover()).issuer

    def token(
        self, *, scope: str | None = None, resource: str | None = None, task: str | None = None
    ) -> dict[str, Any]:
        """A token response. Raises TokenRefused, Unavailable."""
        return self._run(self._token(Target(resource, scope, task)))

    def request(
        self,
        method: str,
        url: str,
        *,
        resource: str | None = None,
        scope: str | None = None,
        task: str | None = None,
        **rest: Any,
    ) -> httpx2.Response:
        """Send a request as this agent; `rest` is for `httpx2.Client.request`. Raises TokenRefused, Unavailable."""
        return self._http.request(method, url, auth=self.auth(resource, scope, task=task), **rest)

    def get(self, url: str, **rest: Any) -> httpx2.Response:
        return self.request("GET", url, **rest)

    def post(self, url: str, **rest: Any) -> httpx2.Response:
        return self.request("POST", url, **rest)

    def task(
        self,
        purpose: str,
        *,
        scopes: Iterable[str] | None = None,
        bounds: Iterable[Mapping[str, Any]] | None = None,
        on_behalf_of: str | None = None,
        ttl: int = DEFAULT_TTL_S,
    ) -> Task:
        """Declare a task; use it as a context manager. Raises ServerRefused."""
        flow = self._start(purpose, scopes=scopes, bounds=bounds, on_behalf_of=on_behalf_of, ttl=ttl)
        return Task(self, self._run(flow))


class Task:
    """A declared task of an agent; leaving its block ends it."""

    def __init__(self, agent: Agent, info: TaskInfo) -> None:
        self._agent, self.id, self.facts = agent, info.id, info.facts

    def __enter__(self) -> Task:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.end("done" if kind is None else "failed")
        except (Refused, httpx2.HTTPError) as error:
            if kind is None:
                raise
            log.warning("task %s has failed and could not be ended: %s", self.id, error)

    def request(self, method: str, url: str, **rest: Any) -> httpx2.Response:
        return self._agent.request(method, url, task=self.id, **rest)

    def get(self, url: str, **rest: Any) -> httpx2.Response:
        return self.request("GET", url, **rest)

    def post(self, url: str, **rest: Any) -> httpx2.Response:
        return self.request("POST", url, **rest)

    def auth(self, resource: str | None = None, scope: str | None = None) -> Auth:
        return self._agent.auth(resource, scope, task=self.id)

    def renew(self, ttl: int = DEFAULT_TTL_S) -> None:
        """Move the end to so many seconds from now. Raises ServerRefused."""
        self._agent._run(self._agent._renew(self.id, ttl))

    def end(self, outcome: str = "done") -> None:
        """End as `done`, `failed` or `cancelled`: every token of it is dead when this returns. Raises ServerRefused."""
        self._agent._run(self._agent._end(self.id, outcome))


class AsyncAgent(_Identity):
    """An agent for asynchronous code."""

    def __init__(self, credential: Credential, *, url: str | None = None, **clock: Any) -> None:
        super().__init__(credential, url=url, **clock)
        self._http = httpx2.AsyncClient(timeout=TIMEOUT_S)

    @classmethod
    def from_credential(cls, path: Path | str, *, url: str | None = None, client_id: str | None = None) -> AsyncAgent:
        """As `Agent.from_credential`."""
        return cls(_named(load_key(path), client_id, url), url=url)

    async def __aenter__(self) -> AsyncAgent:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def _run(self, flow: Flow[T]) -> T:
        return await arun(self._http, flow)

    async def issuer(self) -> str:
        """The issuer identifier, as the server's metadata has it."""
        return (await self._run(self._client.discover())).issuer

    async def token(
        self, *, scope: str | None = None, resource: str | None = None, task: str | None = None
    ) -> dict[str, Any]:
        """A token response. Raises TokenRefused, Unavailable."""
        return await self._run(self._token(Target(resource, scope, task)))

    async def request(
        self,
        method: str,
        url: str,
        *,
        resource: str | None = None,
        scope: str | None = None,
        task: str | None = None,
        **rest: Any,
    ) -> httpx2.Response:
        """As `Agent.request`."""
        return await self._http.request(method, url, auth=self.auth(resource, scope, task=task), **rest)

    async def get(self, url: str, **rest: Any) -> httpx2.Response:
        return await self.request("GET", url, **rest)

    async def post(self, url: str, **rest: Any) -> httpx2.Response:
        return await self.request("POST", url, **rest)

    def task(
        self,
        purpose: str,
        *,
        scopes: Iterable[str] | None = None,
        bounds: Iterable[Mapping[str, Any]] | None = None,
        on_behalf_of: str | None = None,
        ttl: int = DEFAULT_TTL_S,
    ) -> AsyncTask:
        """A task that is declared when its block is entered."""
        return AsyncTask(self, self._start(purpose, scopes=scopes, bounds=bounds, on_behalf_of=on_behalf_of, ttl=ttl))


class AsyncTask:
    """As `Task`."""

    def __init__(self, agent: AsyncAgent, start: Flow[TaskInfo]) -> None:
        self._agent, self._start = agent, start
        self.id, self.facts = "", dict[str, Any]()

    async def __aenter__(self) -> AsyncTask:
        info = await self._agent._run(self._start)
        self.id, self.facts = info.id, dict(info.facts)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.end("done" if kind is None else "failed")
        except (Refused, httpx2.HTTPError) as failure:
            if kind is None:
                raise
            log.warning("task %s has failed and could not be ended: %s", self.id, failure)

    async def request(self, method: str, url: str, **rest: Any) -> httpx2.Response:
        return await self._agent.request(method, url, task=self.id, **rest)

    async def get(self, url: str, **rest: Any) -> httpx2.Response:
        return await self.request("GET", url, **rest)

    async def post(self, url: str, **rest: Any) -> httpx2.Response:
        return await self.request("POST", url, **rest)

    def auth(self, resource: str | None = None, scope: str | None = None) -> Auth:
        return self._agent.auth(resource, scope, task=self.id)

    async def renew(self, ttl: int = DEFAULT_TTL_S) -> None:
        await self._agent._run(self._agent._renew(self.id, ttl))

    async def end(self, outcome: str = "done") -> None:
        await self._agent._run(self._agent._end(self.id, outcome))


def _named(credential: Credential, client_id: str | None, url: str | None) -> Credential:
    """The credential, with what the file leaves open."""
    return Credential(credential.key, client_id or credential.client_id, credential.issuer or url or "")


def _refusal(response: httpx2.Response) -> Refused:
    try:
        said = canonical.parse(response.content)
    except Malformed:
        said = None
    body = said if isinstance(said, dict) else {}
    kind = Unavailable if response.status_code >= 500 else ServerRefused
    message = str(body.get("message") or body.get("error_description") or f"HTTP {response.status_code}")
    return kind(message, hint=str(body.get("hint", "")), code=str(body.get("error", "refused")))
