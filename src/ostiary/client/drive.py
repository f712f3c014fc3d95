"""Three ways to drive the flows of a client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import closing, contextmanager
from typing import TypeVar

import httpx2

from ostiary.client.flows import Client, find_origin
from ostiary.client.steps import Flow
from ostiary.client.target import Target
from ostiary.protocol.errors import Unavailable

T = TypeVar("T")
_AFTER_SENDING = (httpx2.ReadTimeout, httpx2.ReadError, httpx2.RemoteProtocolError, httpx2.DecodingError)
"""Failures of a request that the server may have received completely."""
TIMEOUT = {"timeout": httpx2.Timeout(30.0).as_dict()}
"""timeout of the requests that a flow adds, such as a token request; a request of the caller keeps the caller's
timeout, which may be none for streams
"""


class Auth(httpx2.Auth):
    """Tokens and proofs for any client of httpx2, blocking or not: `httpx2.AsyncClient(auth=agent.auth(...))`."""

    def __init__(self, client: Client, target: Target) -> None:
        self._client, self._target = client, target

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Drive the flow of a request for httpx2, blocking."""
        with closing(self._client.send(request, self._target)) as flow:
            response: httpx2.Response | None = None
            while True:
                try:
                    step = flow.send(response)
                except StopIteration:
                    return
                if not isinstance(step, httpx2.Request):
                    response = None
                    step.block()
                    continue
                step.extensions = TIMEOUT | step.extensions
                response = yield step
                if step is not request or response.status_code == 401:
                    response.read()  # do not read the response for the caller, which may be an endless stream

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Drive the flow of a request for httpx2, asynchronously."""
        with closing(self._client.send(request, self._target)) as flow:
            response: httpx2.Response | None = None
            while True:
                try:
                    step = flow.send(response)
                except StopIteration:
                    return
                if not isinstance(step, httpx2.Request):
                    response = None
                    await step.suspend()
                    continue
                step.extensions = TIMEOUT | step.extensions
                response = yield step
                if step is not request or response.status_code == 401:
                    await response.aread()


def describe_unreachable(error: httpx2.RequestError, ostiary: str = "") -> Unavailable:
    """Return the failure of a request as a refusal that names the server. `ostiary`: the URL of the Ostiary server;
    empty if the request was sent to the Ostiary server.
    """
    server = find_origin(error.request.url)
    is_ostiary = not ostiary or server == find_origin(httpx2.URL(ostiary))
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        place = ", which is `ca.pem` in the data folder of a server with --tls auto" if is_ostiary else ""
        return Unavailable(
            f"the certificate of the server {server} is not trusted: {error}",
            hint=f"set SSL_CERT_FILE to the certificate of its authority{place}",
        )
    how = "check OSTIARY_URL, or start the server: ostiary serve --data-dir DIR"
    if isinstance(error, _AFTER_SENDING):
        how = "check whether the request took effect before you repeat it; find the cause with `ostiary doctor`"
    return Unavailable(
        f"the server {server} does not answer: {error or type(error).__name__}",
        hint=how if is_ostiary else "check the URL, and that this server runs",
    )


@contextmanager
def failures_as_unavailable(ostiary: str = "") -> Iterator[None]:
    """Raise Unavailable in place of the failure of a request (`describe_unreachable`). An UnsupportedProtocol stays
    unchanged: the caller gave a URL that is not an http or https URL.
    """
    try:
        yield
    except httpx2.UnsupportedProtocol:
        raise
    except httpx2.RequestError as error:
        raise describe_unreachable(error, ostiary) from error


def run(http: httpx2.Client, flow: Flow[T]) -> T:
    """Drive a flow to its end with a blocking client, and return its result. Raises Unavailable if a server does not
    answer.
    """
    response: httpx2.Response | None = None
    with closing(flow), failures_as_unavailable():
        try:
            while True:
                step = flow.send(response)
                response = None
                if isinstance(step, httpx2.Request):
                    response = http.send(step, auth=None)
                else:
                    step.block()
        except StopIteration as done:
            value: T = done.value
            return value


async def arun(http: httpx2.AsyncClient, flow: Flow[T]) -> T:
    """Drive a flow to its end with an asynchronous client, and return its result. Raises Unavailable if a server does
    not answer.
    """
    response: httpx2.Response | None = None
    with closing(flow), failures_as_unavailable():
        try:
            while True:
                step = flow.send(response)
                response = None
                if isinstance(step, httpx2.Request):
                    response = await http.send(step, auth=None)
                else:
                    await step.suspend()
        except StopIteration as done:
            value: T = done.value
            return value
