"""Agents for blocking code."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
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
from ostiary.client import Auth, Flow, Target, run
from ostiary.client.certificate import CertificateFiles
from ostiary.client.drive import failures_as_unavailable
from ostiary.keys import Credential
from ostiary.protocol.errors import Refused, check_list

if TYPE_CHECKING:
    from ostiary.agent.certificates import AgentCertificate

T = TypeVar("T")
log = logging.getLogger("ostiary.agent")


class Agent(Identity):
    """An agent for blocking code. Threads and forked processes may share it."""

    def __init__(self, credential: Credential, *, url: str | None = None, **clock: Any) -> None:
        super().__init__(credential, url=url, **clock)
        self._connections, self._process = httpx2.Client(timeout=TIMEOUT_S, verify=self._verify), os.getpid()
        self._replaced: httpx2.Client | None = None

    @classmethod
    def from_certificate(cls, certificate: Path | str, key: Path | str, *, client_id: str, url: str) -> Agent:
        """Return an agent that authenticates by a client certificate (mutual TLS, RFC 8705): PEM files of the chain and
        of the key, which are read again when they change. Its tokens are bound to the certificate. Raises Invalid if
        the files cannot be read or do not belong together.

        `client_id` is the id of the agent (`ostiary agent mutual-tls`), `url` the URL of the server.
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
    ) -> Agent:
        """Return the agent of a credential file that `ostiary agent create --generate-key` wrote. Raises Invalid for an
        unreadable file, and if neither the file nor an argument states the client id and the server.

        `url`: address of the server, if the file has no issuer, or if the address differs from the issuer's name.
        `client_id`: replaces the client id in the file. `second_key`: file of a second key that is
        registered for this agent, best stored separately; it is used where a resource requires two keys (RFC 9470).
        """
        credential = read_credential(path, client_id=client_id, url=url)
        return cls(credential, url=url, second_key=read_second_key(second_key, of=credential))

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of this agent to the server and to resources. Tokens and tasks stay valid."""
        self._http.close()
        if self._replaced is not None:
            self._replaced.close()

    @property
    def _http(self) -> httpx2.Client:
        """Return the connections of this process. A forked process must not use those of its parent, or it
        would read the parent's responses.
        """
        if self._process != os.getpid():
            self._client.share_anew()
            self._connections, self._process = httpx2.Client(timeout=TIMEOUT_S, verify=self._verify), os.getpid()
        elif self._has_new_certificate():
            if self._replaced is not None:
                self._replaced.close()
            self._replaced = self._connections  # other threads may still use the old connections
            self._connections = httpx2.Client(timeout=TIMEOUT_S, verify=self._verify)
        return self._connections

    def _run(self, flow: Flow[T]) -> T:
        return run(self._http, flow)

    @property
    def issuer(self) -> str:
        """Return the URL that identifies the server as the issuer of tokens: `issuer` in the server's metadata (RFC
        8414).
        """
        return self._run(self._client.discover()).issuer

    def token(
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
        return self._run(self._token(Target(resource, scope, task, subject)))

    def request(
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
        status. `resource`, `scope`, `task`, `subject`: the token, as in `auth`. `rest`: further arguments of
        `httpx2.Client.request`. Raises TokenRefused if the server issues no token,
        and Unavailable if the server cannot be reached.
        """
        auth = self.auth(resource, scope, task=task, subject=subject)
        with failures_as_unavailable(self.url):
            return self._http.request(method, url, auth=auth, **rest)

    def stream(
        self, method: str, url: str, *, resource: str | None = None, scope: str | None = None, **rest: Any
    ) -> AbstractContextManager[httpx2.Response]:
        """Return a context manager that sends a request with a token and a DPoP proof of this agent, and yields the
        response before its body is read.
        """
        return self._http.stream(method, url, auth=self.auth(resource, scope), **rest)

    def certificate(
        self,
        profile: str = "agent",
        names: Iterable[str] = (),
        *,
        lifetime: int | None = None,
        task: str | None = None,
        key_type: str = "P-256",
        replaces: str | None = None,
    ) -> AgentCertificate:
        """Generate a key in this process, and return a certificate for the key, with the key.

        Args:
            profile: Certificate profile: `agent`, `server`, or a profile in the server's configuration.
            names: Names such as `dns:api.example.com`; without names, the certificate has the names of the profile.
            lifetime: Lifetime in seconds, at most the lifetime that the profile allows.
            task: Id of the task with which the certificate ends; None for the standing task.
            key_type: `P-256`, `P-384`, `Ed25519`, `RSA-2048`, `RSA-3072` or `RSA-4096`.
            replaces: Serial number of the certificate that the new one renews.

        Raises ServerRefused if the server issues no certificate, and Unavailable if the server cannot be reached.
        """
        return self._run(
            self._certificate(
                profile=profile, names=names, lifetime=lifetime, task=task, key_type=key_type, replaces=replaces
            )
        )

    def certificate_state(self, serial: str) -> str:
        """Return the state of a certificate of this agent: `live`, `on_hold` (by a stop of the kill switch), `revoked`
        or `expired`. Raises ServerRefused if the server refuses the request, and Unavailable if it cannot be reached.
        """
        return self._run(self._certificate_state(serial))

    def get(self, url: str, **rest: Any) -> httpx2.Response:
        """Send a GET request to `url`, and return the response. Further arguments as in `request`."""
        return self.request("GET", url, **rest)

    def post(self, url: str, **rest: Any) -> httpx2.Response:
        """Send a POST request to `url`, and return the response. Further arguments as in `request`."""
        return self.request("POST", url, **rest)

    def secret(self, path: str, *, task: str | None = None) -> Secret:
        """Return the secret at a path that begins with its mount, such as `secret/shared/shop` or
        `database/creds/reports`. A database account ends when its lease, the task or this agent ends.

        Raises ServerRefused if there is no such secret or this agent may not read it, and Unavailable if the server
        cannot be reached.
        """
        return self._run(self._secret(path, task))

    def account_token(self, provider: str, *, scopes: Iterable[str] = (), task: str | None = None) -> AccountToken:
        """Return an access token of the account that the person of the task connected at a provider, such as `github`.

        `scopes`: the requested part of the scopes that the person consented to. Raises ServerRefused if the server
        issues no token, for example because no account is connected, and Unavailable if the server cannot be reached.
        """
        return self._run(self._account_token(provider, scopes, task))

    def ask(self, approval: str, *, within: float = 600) -> Approval:
        """Wait at most `within` seconds for a person's answer to the approval request of a denied call
        (`Denied.approval`), and return the state of the approval. If a person has approved, an equal call passes once.
        Raises ServerRefused if the server refuses the request, and Unavailable if it cannot be reached.
        """
        answer, left = self._run(self._approval(approval)), round(within / POLL_S)
        while answer.is_open and left > 0:
            time.sleep(POLL_S)
            answer, left = self._run(self._approval(approval)), left - 1
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
    ) -> Task:
        """Declare a task, and return it as a context manager. `ttl`: seconds until the task expires. `heartbeat`:
        seconds without a report of any process that works under the task after which the server ends the task as lost;
        inside the block, a thread sends the reports. `end_with_last`: the task ends when the last such process leaves
        its block. `data_classes`: the task may call only tools all of whose data classes are in this list. Raises
        ServerRefused if the server does not start the task.

        `words`: the request of the person; `own`: the person's own record; `endorse`: documents that the person named
        (see `ostiary.provenance.intent`). The server refuses a task with these three from an agent, unless an operator
        has allowed them (`ostiary agent allow-words AGENT`). `plan`: the effects that the task needs, such as `{"tool":
        "bank/pay", "most": "50"}`; without it, the server plans the effects that the words suggest. `ask_plan`: ask
        people once, at the start, to approve the planned effects; `facts["plan_question"]` is then the id of the
        approval for `ask`, or None if the plan needs no approval.
        """
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
        return Task(self, self._run(flow))

    def elevate(
        self, scopes: Iterable[str], *, reason: str, for_: int = 30, break_glass: bool = False, wait: float = 0.0
    ) -> Task:
        """Request, for `for_` minutes, scopes that this agent lacks and that the operator has listed as eligible.

        Return a task with these scopes. The task ends when its block is left, and expires after that time. If a person
        must approve, wait at most `wait` seconds; then raise ApprovalNeeded. With `break_glass`, for an emergency, two
        persons must approve. Raises ServerRefused if the server refuses the elevation.
        """
        scope_list, until = check_list("scopes", scopes), ambient.tick() + round(wait * SECOND)
        while True:
            try:
                flow = self._elevate(scope_list, reason=reason, minutes=for_, break_glass=break_glass)
                return Task(self, self._run(flow))
            except ApprovalNeeded:
                if (left := (until - ambient.tick()) / SECOND) <= 0:
                    raise
                time.sleep(min(POLL_S, left))

    def resume(self, task: str) -> Task:
        """Return a task that was started elsewhere, for example with `ostiary task start` or by another process of this
        agent. The end of its block ends the task; with `end_with_last`, only the end of its last block does. Raises
        ServerRefused for an ended or unknown task.
        """
        return Task(self, self._run(self._resume(task)))

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
    ) -> Task:
        """Delegate work to the agent `to` (name or id): start a task of that agent, no wider than the task `parent`
        or, without it, this agent's standing task. Return the task.

        Give the other agent the `id` of the task, which is no secret. The other agent works with its own key under
        `task=id`. At the end of the block, the task ends, and the tokens of the other agent under the task are revoked.
        Raises ServerRefused if the server does not start the task.
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
        return Task(self, self._run(flow))


class Task:
    """A declared task of an agent. Leaving its block ends the task: as `done`, or as `failed` after an exception. A
    task with `end_with_last` ends when its last holder leaves.
    """

    def __init__(self, agent: Agent, info: TaskInfo) -> None:
        self._agent, self._info = agent, info
        self._beats: Beats | None = None

    def __repr__(self) -> str:
        return f"Task({self.id!r})"

    @property
    def id(self) -> str:
        """Return the id of the task."""
        return self._info.id

    @property
    def facts(self) -> Mapping[str, Any]:
        """Return the members of the task as the server returned them at the start of the task or at `resume`, for
        example `state` and `expires_at`.
        """
        return self._info.facts

    def __enter__(self) -> Task:
        if heartbeat := self.facts.get("heartbeat"):
            self._beats = Beats(self._agent, self.id, every=heartbeat / 3)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        outcome = "done" if kind is None else "failed"
        try:
            if self._beats is not None:
                self._beats.stop(outcome)
            if not self.facts.get("end_with_last"):
                self.end(outcome)
        except Refused as error:
            if kind is None:
                raise
            log.warning("task %s has failed and could not be ended: %s", self.id, error)

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
    ) -> Task:
        """Declare a child task of this task for this agent, and return it. The child has at most the access and the
        lifetime of this task. Raises ServerRefused if the server does not start the task.
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
        return Task(self._agent, self._agent._run(flow))

    def delegate(self, to: str, purpose: str, **narrower: Any) -> Task:
        """Delegate a part of this task to another agent, as `Agent.delegate` does."""
        return self._agent.delegate(to, purpose, parent=self.id, **narrower)

    def request(self, method: str, url: str, **rest: Any) -> httpx2.Response:
        """Send a request with a token of this task, and return the response. Arguments as in `Agent.request`."""
        return self._agent.request(method, url, task=self.id, **rest)

    def get(self, url: str, **rest: Any) -> httpx2.Response:
        """Send a GET request with a token of this task, and return the response. Arguments as in `request`."""
        return self.request("GET", url, **rest)

    def post(self, url: str, **rest: Any) -> httpx2.Response:
        """Send a POST request with a token of this task, and return the response. Arguments as in `request`."""
        return self.request("POST", url, **rest)

    def auth(self, resource: str | None = None, scope: str | None = None) -> Auth:
        """Return the authentication for httpx2 clients whose requests use tokens of this task. See `Agent.auth`."""
        return self._agent.auth(resource, scope, task=self.id)

    def renew(self, ttl: int = DEFAULT_TTL_S) -> None:
        """Set the end of the task to `ttl` seconds from now, but not after the end of its parent task. Raises
        ServerRefused, also if the new end would be earlier than the present end.
        """
        self._agent._run(self._agent._renew(self.id, ttl))

    def end(self, outcome: str = "done") -> None:
        """End the task as `done`, `failed` or `cancelled`. When this method returns, all tokens of the task are
        revoked. Raises ServerRefused if the server does not end the task.
        """
        self._agent._run(self._agent._end(self.id, outcome))


class Beats:
    """The heartbeats of this process for a task: a separate thread sends them over a separate connection."""

    def __init__(self, agent: Agent, task: str, *, every: float) -> None:
        """Register this process as a holder of the task, and send a heartbeat every `every` seconds. Raises
        ServerRefused if the server does not accept the holder.
        """
        self._agent = Agent(agent._client.credential, url=agent._url)
        self._task, self._every, self._holder = task, every, agent._new_holder()
        self._stopping = threading.Event()
        try:
            self._agent._run(self._agent._hold(task, self._holder, "hold"))
        except BaseException:
            self._agent.close()
            raise
        self._thread = threading.Thread(target=self._beat, name="ostiary-heartbeat", daemon=True)
        self._thread.start()

    def stop(self, outcome: str) -> None:
        """Leave the task. `outcome`: the outcome of the task, if this process is its last holder. Raises ServerRefused
        if the server refuses the request.
        """
        self._stopping.set()
        self._thread.join()
        with self._agent:
            self._agent._run(self._agent._hold(self._task, self._holder, "leave", outcome=outcome))

    def _beat(self) -> None:
        while not self._stopping.wait(self._every):
            try:
                if not self._agent._run(self._agent._keep(self._task, self._holder)):
                    return
            except Refused as error:
                log.warning("the heartbeat of task %s failed: %s", self._task, error)
