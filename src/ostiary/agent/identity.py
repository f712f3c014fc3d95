"""The common part of both kinds of agents: the identity, and the requests that declare and end tasks. No I/O."""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx2
import msgspec

from ostiary import ambient
from ostiary.client import Auth, Client, Flow, Target
from ostiary.client.certificate import CertificateFiles
from ostiary.client.refusals import MAX_TEXT, parse_refusal, read_object
from ostiary.keys import Credential, load_key
from ostiary.protocol import jose
from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Forbidden, Invalid, Refused, Unavailable, check_list
from ostiary.protocol.jose import PrivateKey

if TYPE_CHECKING:
    from ostiary.agent.certificates import AgentCertificate

log = logging.getLogger("ostiary.agent")

TIMEOUT_S = 30.0
DEFAULT_TTL_S = 3600


SECOND = 1_000_000
VERSIONED_MOUNTS = (re.compile(r"(secret/)(.*)"), re.compile(r"(backend/[^/]*/)(.*)"))
"""Mounts of version 2 of key-value stores. In the Vault API, a path there is `data/` and the path of the secret."""
POLL_S = 2.0
"""Seconds between two requests to the server for the state of an approval."""


class ServerRefused(Forbidden):
    """The server refused a request. Message, code and hint come from the server."""


class ApprovalNeeded(ServerRefused):
    """Raised if a request of an agent needs an approval, and no person has answered within the waiting time. Send the
    same request again after the approval. `approval`: id of the approval.
    """

    def __init__(self, approval: str) -> None:
        super().__init__(
            f"approval {approval} waits for a person",
            hint="repeat the request after the approval",
            code="approval_needed",
        )
        self.approval = approval


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A declared task: its id, and its members as the server returned them (`facts`)."""

    id: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval: its id, its state (`open`, `approved`, `denied`, ..), and the reason that the last person gave."""

    id: str
    state: str
    reason: str = ""

    @property
    def is_open(self) -> bool:
        """Return whether the request still waits for the answer of a person."""
        return self.state == "open"

    @property
    def is_granted(self) -> bool:
        """Return whether people have approved the call, and the approval is neither spent nor expired."""
        return self.state == "approved"


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret. `data`: its members. If the server created an account for this agent, `lease_id` and `lease_s`
    are the id of the lease and its duration in seconds.
    """

    path: str
    data: Mapping[str, Any] = field(repr=False)
    lease_id: str = ""
    lease_s: int = 0


@dataclass(frozen=True, slots=True)
class AccountToken:
    """An access token of the account of a person at a provider; `expires_at` in seconds since the epoch.

    The token ends when its lease, the task or this agent ends.
    """

    provider: str
    access_token: str = field(repr=False)
    scopes: frozenset[str]
    expires_at: int
    lease_id: str = ""


class Identity:
    """The identity of an agent, and its requests to the server as flows. `Agent` and `AsyncAgent` run the flows."""

    def __init__(
        self,
        credential: Credential,
        *,
        url: str | None = None,
        second_key: PrivateKey | None = None,
        files: CertificateFiles | None = None,
        now: Callable[[], int] = ambient.now,
        random: Callable[[int], bytes] = ambient.random,
    ) -> None:
        if not credential.client_id:
            raise Invalid("the credential names no client id", hint="give `client_id` to `from_credential`")
        if not (url or credential.issuer):
            raise Invalid("the credential names no issuer", hint="give `url`, the address of the server")
        self._url = (url or credential.issuer).rstrip("/")
        self._random, self._files = random, files
        self._client = Client(credential, url=self._url, second_key=second_key, now=now, random=random)

    @property
    def _verify(self) -> ssl.SSLContext | bool:
        """Return the TLS context of connections, with the client certificate of the agent. Return True (verify servers
        in the usual way) for an agent without a certificate.
        """
        return True if self._files is None else self._files.context

    def _has_new_certificate(self) -> bool:
        """Return whether the certificate files have changed; then remove the tokens that are bound to the old
        certificate.
        """
        if self._files is None or not self._files.renew():
            return False
        self._client.forget_all()
        return True

    @property
    def url(self) -> str:
        """Return the URL of the server."""
        return self._url

    @property
    def client(self) -> Client:
        """Return the object that gets and keeps the agent's tokens, and that knows the metadata and nonces of the
        server.
        """
        return self._client

    @property
    def client_id(self) -> str:
        """Return the client id of the agent."""
        return self._client.credential.client_id

    @property
    def standing_task(self) -> str:
        """Return the id of the agent's standing task, which is for work without a declared task."""
        return f"tk_{self.client_id.partition('_')[2]}"

    def auth(
        self,
        resource: str | None = None,
        scope: str | None = None,
        *,
        task: str | None = None,
        subject: str | None = None,
        acr_values: str | None = None,
        max_age: int | None = None,
    ) -> Auth:
        """Return the authentication for `httpx2.Client(auth=..)` and `httpx2.AsyncClient(auth=..)`. Without
        `resource`, the client reads the resource from the server's challenge.

        `subject`: a token of another agent for this agent (its resource is `<issuer>/agents/<name>`), on whose behalf
        this agent then acts. `acr_values`, `max_age` (seconds): the assurance to request with the first token, if the
        resource is known to require it.
        """
        return Auth(self._client, Target(resource, scope, task, subject, acr_values, max_age))

    def _token(self, target: Target) -> Flow[dict[str, Any]]:
        token = yield from self._client.token(target)
        return token.answer

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Flow[Any]:
        """Send a request to the API of the server; return its answer. Raises ServerRefused if the server refuses the
        request, and Unavailable if it cannot be reached.
        """
        metadata = yield from self._client.discover()
        base = metadata.api_base(self._url, has_certificate=self._files is not None)
        request = httpx2.Request(method, f"{base}/api/v1{path}", json=dict(body) if body is not None else None)
        response = yield from self._client.send(request, Target(f"{metadata.issuer}/api/v1"))
        if response.status_code >= 400:
            raise parse_refusal(response.status_code, response.content, kind=ServerRefused)
        return _read_answer(response)

    def _secret(self, path: str, task: str | None, **query: str) -> Flow[Secret]:
        """Return the secret at a path that begins with its mount. Raises ServerRefused if there is no such secret or
        this agent may not read it, and Unavailable if the server cannot be reached.
        """
        metadata = yield from self._client.discover()
        base = metadata.api_base(self._url, has_certificate=self._files is not None)
        below = _versioned(path)
        request = httpx2.Request("GET", f"{base}/v1/{quote(below)}", params=query or None)
        response = yield from self._client.send(request, Target(f"{metadata.issuer}/api/v1", task=task))
        if response.status_code >= 400:
            raise _parse_secret_refusal(path, response)
        answer = _read_answer(response)
        data = answer["data"] if below == path else answer["data"]["data"]
        return Secret(path, data, answer["lease_id"], answer["lease_duration"] if answer["lease_id"] else 0)

    def _account_token(self, provider: str, scopes: Iterable[str], task: str | None) -> Flow[AccountToken]:
        """Return an access token of the account of the task's person. Raises ServerRefused if the server issues no
        token, and Unavailable if it cannot be reached.
        """
        text = " ".join(check_list("scopes", scopes))
        secret = yield from self._secret(f"oauth/creds/{provider}", task, **({"scopes": text} if text else {}))
        data = secret.data
        return AccountToken(
            provider, data["access_token"], frozenset(data["scopes"]), data["expires_at"], secret.lease_id
        )

    def _certificate(
        self,
        *,
        profile: str,
        names: Iterable[str],
        lifetime: int | None,
        task: str | None,
        key_type: str,
        replaces: str | None,
    ) -> Flow[AgentCertificate]:
        """Return a new certificate for a new key. Raises ServerRefused if the server issues no certificate, and
        Unavailable if it cannot be reached.
        """
        from ostiary.agent import certificates  # X.509 is slow to import, and most agents have no certificate

        key = certificates.NewKey(key_type)
        body = certificates.request_body(
            key, profile=profile, names=names, task=task, lifetime=lifetime, replaces=replaces
        )
        answer = yield from self._call("POST", "/certificates", body)
        return certificates.read_issued(answer, key)

    def _certificate_state(self, serial: str) -> Flow[str]:
        """Return the state of the certificate `serial`. Raises ServerRefused for a certificate of another agent."""
        answer = yield from self._call("GET", f"/certificates/{serial}")
        state: str = answer["state"]
        return state

    def _approval(self, id: str) -> Flow[Approval]:
        """Return the state of the approval `id`. Raises ServerRefused for an approval of another agent."""
        answer = yield from self._call("GET", f"/approvals/{id}")
        return Approval(answer["approval_id"], answer["state"], answer["reason"])

    def _start(
        self,
        purpose: str,
        *,
        scopes: Iterable[str] | None,
        bounds: Iterable[Mapping[str, Any]] | None,
        data_classes: Iterable[str] | None = None,
        budget: Iterable[Mapping[str, Any]] = (),
        on_behalf_of: str | None = None,
        ttl: int,
        parent: str | None = None,
        agent: str | None = None,
        heartbeat: int | None = None,
        end_with_last: bool = False,
        intent: Mapping[str, Any] | None = None,
        ask_plan: bool = False,
    ) -> Flow[TaskInfo]:
        body: dict[str, Any] = {"purpose": purpose, "ttl": ttl, "budget": check_list("budget", budget)}
        body |= {} if intent is None else {"intent": dict(intent)}
        body |= {} if scopes is None else {"scopes": check_list("scopes", scopes)}
        body |= {} if bounds is None else {"bounds": check_list("bounds", bounds)}
        body |= {} if data_classes is None else {"data_classes": check_list("data_classes", data_classes)}
        body |= {} if on_behalf_of is None else {"on_behalf_of": on_behalf_of}
        body |= {} if parent is None else {"parent": parent}
        body |= {} if agent is None else {"agent": agent}
        body |= {} if heartbeat is None else {"heartbeat": heartbeat, "end_with_last": end_with_last}
        started = yield from self._call("POST", "/tasks", body)
        if ask_plan:
            question = (yield from self._call("POST", f"/tasks/{started['task_id']}/plan-question"))["question"]
            started = {**started, "plan_question": None if question is None else question["approval_id"]}
        return TaskInfo(started["task_id"], started)

    def _elevate(self, scopes: Sequence[str], *, reason: str, minutes: int, break_glass: bool) -> Flow[TaskInfo]:
        """Request additional scopes for `minutes`, and return the task that has them. Raises ApprovalNeeded if a person
        must approve first, ServerRefused if the server refuses the elevation.
        """
        body = {"scopes": scopes, "reason": reason, "minutes": minutes, "break_glass": break_glass}
        answered = yield from self._call("POST", "/elevations", body)
        if "task_id" not in answered:
            raise ApprovalNeeded(answered["approval_id"])
        return TaskInfo(answered["task_id"], answered)

    def _resume(self, task: str) -> Flow[TaskInfo]:
        """Return a live task of this agent. Raises ServerRefused for an ended or unknown task."""
        task_facts = yield from self._call("GET", f"/tasks/{task}")
        if task_facts["state"] != "live":
            raise ServerRefused(
                f"the task {task} has ended: {task_facts['state']}", hint="start another task", code="task_ended"
            )
        return TaskInfo(task_facts["task_id"], task_facts)

    def _hold(self, task: str, holder: str, verb: str, **more: str) -> Flow[Any]:
        """Send `hold`, `beat` or `leave` (the `verb`) for a holder of the task; return the server's answer."""
        return self._call("POST", f"/tasks/{task}/{verb}", {"holder": holder, **more})

    def _keep(self, task: str, holder: str) -> Flow[bool]:
        """Send one heartbeat. Return False once the server no longer accepts this holder. Raises Unavailable if the
        server cannot be reached.
        """
        try:
            yield from self._hold(task, holder, "beat")
        except ServerRefused as refusal:
            if refusal.code != "no_holder":
                log.warning("task %s has lost its holder: %s", task, refusal.message)
                return False
            # this holder has missed heartbeats; the task continues because of other holders
            yield from self._hold(task, holder, "hold")
        return True

    def _new_holder(self) -> str:
        return f"ho_{self._random(16).hex()}"

    def _renew(self, task: str, ttl: int) -> Flow[Any]:
        return self._call("POST", f"/tasks/{task}/renew", {"ttl": ttl})

    def _end(self, task: str, outcome: str) -> Flow[Any]:
        return self._call("POST", f"/tasks/{task}/end", {"outcome": outcome})


_decode = json_decoder(Any)


def _read_answer(response: httpx2.Response) -> Any:
    """Return the JSON value of an answer. Raises Unavailable for another answer, such as the login page of a proxy."""
    try:
        return _decode(response.content)
    except msgspec.DecodeError:
        raise Unavailable(
            f"{response.url.host} answered {response.status_code} without JSON",
            hint="check the URL of the server; a proxy or another server may have answered",
        ) from None


def _versioned(path: str) -> str:
    """Return a path of a secret in the form for a request: with `data/` behind a mount of VERSIONED_MOUNTS."""
    for mount in VERSIONED_MOUNTS:
        if match := mount.fullmatch(path):
            return f"{match[1]}data/{match[2]}"
    return path


def _parse_secret_refusal(path: str, response: httpx2.Response) -> Refused:
    """Return the refusal in a response of the Vault API, whose body has a list with the error and the next step."""
    body = read_object(response.content)
    texts = [text for text in body.get("errors", ()) if isinstance(text, str)] or [f"no secret is stored at {path}"]
    kind: type[Refused] = Unavailable if response.status_code >= 500 else ServerRefused
    return kind(texts[0][:MAX_TEXT], hint=" ".join(texts[1:])[:MAX_TEXT], code="secret_refused")


def intent_of(
    words: str | None,
    own: Mapping[str, str] | None,
    endorse: Iterable[Mapping[str, Any]],
    plan: Iterable[Mapping[str, str]] | None = None,
) -> Mapping[str, Any] | None:
    """Return an intent as the member `intent` of a request for a task (`ostiary.provenance.intent`); None without
    `words`. Raises Invalid if `own`, `endorse` or `plan` is given without `words`.
    """
    documents = check_list("endorse", endorse)
    if words is None:
        if own or documents or plan is not None:
            raise Invalid("`own`, `endorse` and `plan` need the words of the person", hint="add `words`")
        return None
    intent = {"words": words, "own": dict(own or {}), "endorsed": documents}
    return intent if plan is None else intent | {"plan": [dict(planned) for planned in check_list("plan", plan)]}


def read_credential(path: Path | str, *, client_id: str | None, url: str | None) -> Credential:
    """Return the credential in a file. `client_id` replaces the client id in the file; `url` is the issuer if the file
    names none. Raises Invalid for an unreadable file.
    """
    credential = load_key(path)
    return replace(credential, client_id=client_id or credential.client_id, issuer=credential.issuer or url or "")


def certificate_credential(client_id: str, url: str) -> Credential:
    """Return the credential of an agent that authenticates by a client certificate (mutual TLS). Its private key is a
    placeholder that is never used.
    """
    return Credential(jose.generate("ES256"), client_id, url, has_certificate=True)


def read_second_key(path: Path | str | None, *, of: Credential) -> PrivateKey | None:
    """Return the private key in a second credential file of the client `of`; None without a `path`. Raises Invalid if
    the file belongs to another client or has the key of the first credential.
    """
    if path is None:
        return None
    second = load_key(path)
    if second.client_id not in ("", of.client_id):
        raise Invalid(
            f"{path} is the key of `{second.client_id}`, not of `{of.client_id}`", hint="name a key of this agent"
        )
    if second.key.public.thumbprint == of.key.public.thumbprint:
        raise Invalid(
            f"{path} has the same key as the first credential",
            hint="register a second key: ostiary key add AGENT --generate-key FILE",
        )
    return second.key
