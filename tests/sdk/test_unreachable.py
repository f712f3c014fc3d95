"""A server that does not answer, or answers with something other than JSON: every method of an agent raises
Unavailable.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from harness.clock import Clock
from ostiary.agent import Agent, AsyncAgent
from ostiary.client import run
from ostiary.client.drive import failures_as_unavailable
from ostiary.keys import Credential
from ostiary.protocol import jose
from ostiary.protocol.errors import Unavailable
from tests.sdk.server import ISSUER, Server

KEY = jose.generate("ES256")
METHODS: dict[str, Callable[[Any], Any]] = {
    "token": lambda agent: agent.token(),
    "request": lambda agent: agent.request("GET", f"{agent.url}/x", resource=f"{agent.url}/api/v1"),
    "get": lambda agent: agent.get(f"{agent.url}/x", resource=f"{agent.url}/api/v1"),
    "certificate": lambda agent: agent.certificate(),
    "certificate_state": lambda agent: agent.certificate_state("0" * 32),
    "secret": lambda agent: agent.secret("secret/shared/shop"),
    "account_token": lambda agent: agent.account_token("github"),
    "ask": lambda agent: agent.ask("ap_1"),
    "issuer": lambda agent: agent.issuer() if isinstance(agent, AsyncAgent) else agent.issuer,
}
ANSWERS = {
    "closes": b"",
    "garbage": b"220 mail\r\n",
    "no gzip": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
}
KINDS = ["refuses", *ANSWERS]


@contextmanager
def dead_server(kind: str) -> Iterator[str]:
    """Yield the URL of a port that refuses connections, ends each without an answer, speaks no HTTP, or sends a body
    that is not what its header says.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if kind == "refuses":
            listener.close()
            yield url
            return

        def answer() -> None:
            try:
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(ANSWERS[kind])
            except OSError:
                return

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield url
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_an_agent_raises_unavailable_if_the_server_does_not_respond(kind: str, method: str) -> None:
    with (
        dead_server(kind) as url,
        Agent(Credential(KEY, "ag_1", ISSUER), url=url) as agent,
        pytest.raises(Unavailable, match=f"the server {url} does not answer: .") as refused,
    ):
        METHODS[method](agent)
    assert refused.value.hint.startswith("check OSTIARY_URL" if kind == "refuses" else "check whether the request took")


@pytest.mark.parametrize("kind", KINDS)
def test_the_hint_of_a_failed_request_to_another_server_does_not_mention_the_ostiary_server(
    kind: str, clock: Clock
) -> None:
    server = Server(clock, KEY)
    with dead_server(kind) as url, Agent(Credential(KEY, "ag_1", ISSUER), now=clock) as agent:
        agent._connections = httpx2.Client(mounts={ISSUER: httpx2.MockTransport(server)})
        with pytest.raises(Unavailable, match=f"the server {url} does not answer: .") as refused:
            agent.get(f"{url}/x", resource=f"{url}/x")
    assert refused.value.hint == "check the URL, and that this server runs"


def test_the_hint_of_a_request_without_an_answer_in_time_says_that_it_may_have_taken_effect() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        httpx2.Client(timeout=httpx2.Timeout(None, read=0.01)) as http,
        pytest.raises(Unavailable, match="does not answer: timed out") as refused,
        failures_as_unavailable(),
    ):
        http.get(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert refused.value.hint.startswith("check whether the request took effect")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
async def test_every_method_of_an_async_agent_raises_unavailable_if_the_server_does_not_respond(
    kind: str, method: str
) -> None:
    with dead_server(kind) as url:
        async with AsyncAgent(Credential(KEY, "ag_1", ISSUER), url=url) as agent:
            with pytest.raises(Unavailable, match=f"the server {url} does not answer: ."):
                await METHODS[method](agent)


@pytest.mark.parametrize("page", ["<h1>Sign in to the network</h1>", ""])
def test_a_response_without_json_is_not_accepted_as_a_response_of_the_server(page: str, clock: Clock) -> None:
    server = Server(clock, KEY)

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, text=page) if "/api/" in request.url.path else server(request)

    with (
        Agent(Credential(KEY, "ag_1", ISSUER), now=clock) as agent,
        httpx2.Client(transport=httpx2.MockTransport(answer)) as http,
        pytest.raises(Unavailable, match="without JSON"),
    ):
        run(http, agent._certificate_state("0" * 32))
