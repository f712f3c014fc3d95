"""Agents for asynchronous code: `AsyncAgent` has the methods of `Agent` (`ostiary.agent.blocking`), called with
`await`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2

from ostiary import ambient
from ostiary.agent.identity import (
    DEFAULT_TTL_S,
    POLL_S,
    SECOND,
    TIMEOUT_S,
    AccountToken,
    Approval,
    ApprovalNeeded,
    Identity,
    Secret,
    TaskInfo,
    certificate_credential,
    intent_of,
    read_credential,
    read_second_key,
)
from ostiary.client import Auth, Flow, Target, arun
from ostiary.client.certificate import CertificateFiles
from ostiary.client.drive import failures_as_unavailable
from ostiary.keys import Credential
from ostiary.protocol.errors import Invalid, Refused, check_list

if TYPE_CHECKING:
    from ostiary.agent.certificates import AgentCertificate

T = TypeVar("T")
log = logging.getLogger("ostiary.agent")


class AsyncAgent(Identity):
    """An agent for asynchronous code. Several asyncio tasks may share one object."""

    def __init__(self, credential: Credential, *, url: str | None = None, **clock: Any) -> None:
        super().__init__(credential, url=url, **clock)
        self._connections = httpx2.AsyncClient(timeout=TIMEOUT_S, verify=self._verify)
        self._replaced: list[httpx2.AsyncClient] = []

    @property
    def _http(self) -> httpx2.AsyncClient:
        """The HTTP connections. If the agent has a client certificate, they present it to servers."""
        if self._has_new_certificate():
            self._replaced.append(self._connections)  # other tasks may still use the old connections
            self._connections = httpx2.AsyncClient(timeout=TIMEOUT_S, verify=self._verify)
        return self._connections

    @classmethod
    def from_certificate(cls, certificate: Path | str, key: Path | str, *, client_id: str, url: str) -> AsyncAgent:
        """Return an agent that authenticates by a client certificate (mutual TLS, RFC 8705), given as PEM files of the
        chain and of the key. Arguments and errors as in `Agent.from_certificate`.
        """
        return cls(certificate_credential(client_id, url), files=CertificateFiles(certificate, key))

    @classmethod
    def from_credential(
        cls,
        path: Path | str,
        *,
        url: str | None = None,
        client_id: str | None = None,
        second_key: Path | str | None = None,
    ) -> AsyncAgent:
        """Return the agent of a credential file that `ostiary agent create --generate-key` wrote. Arguments and errors
        as in `Agent.from_credential`.
        """
        credential = read_credential(path, client_id=client_id, url=url)
        return cls(credential, url=url, second_key=read_second_key(second_key, of=credential))

    async def __aenter__(self) -> AsyncAgent:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections of this agent to the server and to resources. Tokens and tasks stay valid."""
        for http in (self._http, *self._replaced):
            await http.aclose()

    async def _run(self, flow: Flow[T]) -> T:
        return await arun(self._http, flow)

    async def issuer(self) -> str:
        """Return the URL that identifies the server as the issuer of tokens: `issuer` in the server's metadata (RFC
        8414).
        """
        return (await self._run(self._client.discover())).issuer

    async def token(
        self,
        *,
        scope: str | None = None,
        resource: str | None = None,
        task: str | None = None,
        subject: str | None = None,
    ) -> dict[str, Any]:
        """Request a token from the server, and return the members of the response, such as `access_token`. `subject`: a
        token of another agent, in exchange for which the new token is issued (RFC 8693). Raises TokenRefused if the
        server issues no token, and Unavailable if the server cannot be reached.
        """
        return await self._run(self._token(Target(resource, scope, task, subject)))

    async def request(
        self,
        method: str,
        url: str,
        *,
        resource: str | None = None,
        scope: str | None = None,
        task: str | None = None,
        subject: str | None = None,
        **rest: Any,
    ) -> httpx2.Response:
        """Send an HTTP request with a token and a DPoP proof of this agent, and return the response, whatever its
        status. Arguments and errors as in `Agent.request`.
        """
        auth = self.auth(resource, scope, task=task, subject=subject)
        with failures_as_unavailable(self.url):
            return await self._http.request(method, url, auth=auth, **rest)

    def stream(
        self, method: str, url: str, *, resource: str | None = None, scope: str | None = None, **rest: Any
    ) -> AbstractAsyncContextManager[httpx2.Response]:
        """Return an asynchronous context manager that sends a request with a token and a DPoP proof of this agent, and
        yields the response before its body is read.
        """
        return self._http.stream(method, url, auth=self.auth(resource, scope), **rest)

    async def certificate(
        self,
        profile: str = "agent",
        names: Iterable[str] = (),
        *,
        lifetime: int | None = None,
        task: str | None = None,
        key_type: str = "P-256",
        replaces: str | None = None,
    ) -> AgentCertificate:
        """Generate a key in this process, and return a certificate for the key, issued by the server. Arguments and
        errors as in `Agent.certificate`.
        """
        return await self._run(
            self._certificate(
                profile=profile, names=names, lifetime=lifetime, task=task, key_type=key_type, replaces=replaces
            )
        )

    async def certificate_state(self, serial: str) -> str:
        """Return the state of a certificate of this agent. States and errors as in `Agent.certificate_state`."""
        return await self._run(self._certificate_state(serial))

    async def secret(self, path: str, *, task: str | None = None) -> Secret:
        """Return the secret at a path that begins with its mount, such as `secret/shared/shop`. Errors as in
        `Agent.secret`.
        """
        return await self._run(self._secret(path, task))

    async def account_token(
        self, provider: str, *, scopes: Iterable[str] = (), task: str | None = None
    ) -> AccountToken:
        """Return an access token of the account that the person of the task connected at a provider, such as `github`.
        Arguments and errors as in `Agent.account_token`.
        """
        return await self._run(self._account_token(provider, scopes, task))

    async def get(self, url: str, **rest: Any) -> httpx2.Response:
        """Send a GET request to `url`, and return the response. Further arguments as in `request`."""
        return await self.request("GET", url, **rest)

    async def post(self, url: str, **rest: Any) -> httpx2.Response:
        """Send a POST request to `url`, and return the response. Further arguments as in `request`."""
        return await self.request("POST", url, **rest)

    async def ask(self, approval: str, *, within: float = 600) -> Approval:
        """Wait at most `within` seconds for a person's answer to an approval request, and return the state of the
        approval. Errors as in `Agent.ask`.
        """
        answer, left = await self._run(self._approval(approval)), round(within / POLL_S)
        while answer.is_open and left > 0:
            await asyncio.sleep(POLL_S)
            answer, left = await self._run(self._approval(approval)), left - 1
        return answer

    def task(
        self,
        purpose: str,
        *,
        scopes: Iterable[str] | None = None,
        bounds: Iterable[Mapping[str, Any]] | None = None,
        data_classes: Iterable[str] | None = None,
        budget: Iterable[Mapping[str, Any]] = (),
        on_behalf_of: str | None = None,
        ttl: int = DEFAULT_TTL_S,
        heartbeat: int | None = None,
        end_with_last: bool = False,
        words: str | None = None,
        own: Mapping[str, str] | None = None,
        endorse: Iterable[Mapping[str, Any]] = (),
        plan: Iterable[Mapping[str, str]] | None = None,
        ask_plan: bool = False,
    ) -> AsyncTask:
        """Return a task that is declared when its block is entered. Arguments and errors as in `Agent.task`."""
        flow = self._start(
            purpose,
            scopes=scopes,
            bounds=bounds,
            data_classes=data_classes,
            budget=budget,
            on_behalf_of=on_behalf_of,
            ttl=ttl,
            heartbeat=heartbeat,
            end_with_last=end_with_last,
            intent=intent_of(words, own, endorse, plan),
            ask_plan=ask_plan,
        )
        return AsyncTask(self, flow)

    async def elevate(
        self, scopes: Iterable[str], *, reason: str, for_: int = 30, break_glass: bool = False, wait: float = 0.0
    ) -> AsyncTask:
        """Request, for `for_` minutes, scopes that this agent lacks, and return a task with these scopes. Arguments and
        errors as in `Agent.elevate`.
        """
        scope_list, until = check_list("scopes", scopes), ambient.tick() + round(wait * SECOND)
        while True:
            try:
                flow = self._elevate(scope_list, reason=reason, minutes=for_, break_glass=break_glass)
                info = await self._run(flow)
                return AsyncTask(self, _completed(info), info)
            except ApprovalNeeded:
                if (left := (until - ambient.tick()) / SECOND) <= 0:
                    raise
                await asyncio.sleep(min(POLL_S, left))

    def resume(self, task: str) -> AsyncTask:
        """Return a task that was started elsewhere, for example with `ostiary task start` or by another process of this
        agent. Entering its block asks the server for the task; the end of the block ends the task, or with
        `end_with_last`, the end of its last block. Entering raises ServerRefused for an ended or unknown task.
        """
        return AsyncTask(self, self._resume(task))

    def delegate(
        self,
        to: str,
        purpose: str,
        *,
        scopes: Iterable[str] | None = None,
        bounds: Iterable[Mapping[str, Any]] | None = None,
        data_classes: Iterable[str] | None = None,
        budget: Iterable[Mapping[str, Any]] = (),
        ttl: int = DEFAULT_TTL_S,
        parent: str | None = None,
        words: str | None = None,
        own: Mapping[str, str] | None = None,
        endorse: Iterable[Mapping[str, Any]] = (),
        plan: Iterable[Mapping[str, str]] | None = None,
        ask_plan: bool = False,
    ) -> AsyncTask:
        """Return a task for the agent `to` (name or id). The task is delegated when its `async with` block begins: it
        is at most as wide as the task `parent` or, without it, this agent's standing task. Arguments as in
        `Agent.delegate`.
        """
        flow = self._start(
            purpose,
            scopes=scopes,
            bounds=bounds,
            data_classes=data_classes,
            budget=budget,
            ttl=ttl,
            parent=self.standing_task if parent is None else parent,
            agent=to,
            intent=intent_of(words, own, endorse, plan),
            ask_plan=ask_plan,
        )
        return AsyncTask(self, flow)


class AsyncTask:
    """A task of an agent, with asynchronous methods. Entering its block declares the task. Leaving the block ends the
    task; a task with `end_with_last` ends when its last holder leaves. `Task` is the same for blocking code, but is
    declared at once.
    """

    def __init__(self, agent: AsyncAgent, start: Flow[TaskInfo], info: TaskInfo | None = None) -> None:
        self._agent, self._start, self._info = agent, start, info
        self._holder = ""
        self._beats: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"AsyncTask({self._info.id!r})" if self._info is not None else "AsyncTask(not declared)"

    @property
    def id(self) -> str:
        """Return the id of the task. Raises Invalid before the block of the task is entered."""
        return self._declared.id

    @property
    def facts(self) -> Mapping[str, Any]:
        """Return the members of the task as the server returned them when the block was entered, for example `state`.
        Raises Invalid before the block of the task is entered.
        """
        return self._declared.facts

    @property
    def _declared(self) -> TaskInfo:
        if self._info is None:
            raise Invalid(
                "the task is not declared yet", hint="enter its block first: async with agent.task(...) as task:"
            )
        return self._info

    async def __aenter__(self) -> AsyncTask:
        self._info = await self._agent._run(self._start)
        if heartbeat := self.facts.get("heartbeat"):
            self._holder = self._agent._new_holder()
            await self._agent._run(self._agent._hold(self.id, self._holder, "hold"))
            self._beats = asyncio.create_task(self._beat(heartbeat / 3))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outcome = "done" if kind is None else "failed"
        try:
            if self._beats is not None:
                self._beats.cancel()
                await asyncio.wait([self._beats])
                await self._agent._run(self._agent._hold(self.id, self._holder, "leave", outcome=outcome))
            if not self.facts.get("end_with_last"):
                await self.end(outcome)
        except Refused as failure:
            if kind is None:
                raise
            log.warning("task %s has failed and could not be ended: %s", self.id, failure)

    async def _beat(self, every: float) -> None:
        is_held = True
        while is_held:
            await asyncio.sleep(every)
            try:
                is_held = await self._agent._run(self._agent._keep(self.id, self._holder))
            except Refused as error:
                log.warning("the heartbeat of task %s failed: %s", self.id, error)

    def task(
        self,
        purpose: str,
        *,
        scopes: Iterable[str] | None = None,
        bounds: Iterable[Mapping[str, Any]] | None = None,
        data_classes: Iterable[str] | None = None,
        budget: Iterable[Mapping[str, Any]] = (),
        ttl: int = DEFAULT_TTL_S,
        words: str | None = None,
        own: Mapping[str, str] | None = None,
        endorse: Iterable[Mapping[str, Any]] = (),
        plan: Iterable[Mapping[str, str]] | None = None,
        ask_plan: bool = False,
    ) -> AsyncTask:
        """Return a child task of this task, for this agent. Entering the block of the child declares it; the child has
        at most the access and the lifetime of this task.
        """
        flow = self._agent._start(
            purpose,
            scopes=scopes,
            bounds=bounds,
            data_classes=data_classes,
            budget=budget,
            ttl=ttl,
            parent=self.id,
            intent=intent_of(words, own, endorse, plan),
            ask_plan=ask_plan,
        )
        return AsyncTask(self._agent, flow)

    def delegate(self, to: str, purpose: str, **narrower: Any) -> AsyncTask:
        """Return a part of this task for the agent `to` (name or id). Entering the block of the part declares the part.
        Options as in `AsyncAgent.delegate`. Raises Invalid before the block of this task is entered.
        """
        return self._agent.delegate(to, purpose, parent=self.id, **narrower)

    async def request(self, method: str, url: str, **rest: Any) -> httpx2.Response:
        """Send a request with a token of this task, and return the response. Arguments as in `AsyncAgent.request`."""
        return await self._agent.request(method, url, task=self.id, **rest)

    async def get(self, url: str, **rest: Any) -> httpx2.Response:
        """Send a GET request with a token of this task, and return the response. Arguments as in `request`."""
        return await self.request("GET", url, **rest)

    async def post(self, url: str, **rest: Any) -> httpx2.Response:
        """Send a POST request with a token of this task, and return the response. Arguments as in `request`."""
        return await self.request("POST", url, **rest)

    def auth(self, resource: str | None = None, scope: str | None = None) -> Auth:
        """Return the authentication for httpx2 clients whose requests use tokens of this task, as `AsyncAgent.auth`
        does.
        """
        return self._agent.auth(resource, scope, task=self.id)

    async def renew(self, ttl: int = DEFAULT_TTL_S) -> None:
        """Set the end of the task to `ttl` seconds from now, but not after the end of its parent task. Raises
        ServerRefused, also if the new end would be earlier than the present end.
        """
        await self._agent._run(self._agent._renew(self.id, ttl))

    async def end(self, outcome: str = "done") -> None:
        """End the task with an outcome: `done`, `failed` or `cancelled`. The server then revokes all tokens of the
        task.
        """
        await self._agent._run(self._agent._end(self.id, outcome))


def _completed(info: TaskInfo) -> Flow[TaskInfo]:
    """Return the known task `info` as a flow that sends no request."""
    return info
    yield
