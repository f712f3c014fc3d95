"""A client used by threads and tasks at once: nonces, renewals of tokens, servers that ask for time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest

from harness.clock import Clock, SeededRandom
from harness.patience import PATIENCE_S
from ostiary.agent import Agent
from ostiary.client import Auth, Client, Target, TokenRefused, run
from ostiary.client.sending import IDEMPOTENT, MAX_PAUSES
from ostiary.client.steps import Wait
from ostiary.keys import Credential
from ostiary.protocol import jose
from tests.sdk.server import API, ISSUER, Server

KEY = jose.generate("ES256")
TARGET = Target(API, "files:read")
OTHER = "https://mail.example.org/api"
THREADS = 16
TRANSIT_S = 0.002


class RotatingServer(Server):
    """Changes a nonce at every second answer and takes the last one alone; each host has nonces of its own.

    `tells`: whether an answer that is no refusal says the new nonce (RFC 9449 section 8.2).
    """

    def __init__(self, clock: Clock, *, every: int = 2, tells: bool = True) -> None:
        super().__init__(clock, KEY)
        self.every, self.tells = every, tells
        self.counts = Counter[str]()
        self.statuses = Counter[int]()
        self.mutex = threading.Lock()

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        with self.mutex:
            place = "as" if str(request.url) == f"{ISSUER}/token" else request.url.host
            self.nonces["rs"] = self._nonce(place)
            if place == "as":
                self.nonces["as"] = self._nonce(place)
            response = super().__call__(request)
            self.counts[place] += 1
            self.statuses[response.status_code] += 1
            if "dpop-nonce" in response.headers or self.tells:
                response.headers["dpop-nonce"] = self._nonce(place)
            return response

    def _nonce(self, place: str) -> str:
        return f"{place}-{self.counts[place] // self.every}"

    def in_thread(self, request: httpx2.Request) -> httpx2.Response:
        time.sleep(TRANSIT_S)
        response = self(request)
        time.sleep(TRANSIT_S)
        return response

    async def in_task(self, request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(TRANSIT_S)
        response = self(request)
        await asyncio.sleep(TRANSIT_S)
        return response


@pytest.fixture
def client(clock: Clock, dice: SeededRandom) -> Client:
    return Client(Credential(KEY, "ag_1", ISSUER), now=clock, random=dice)


def in_threads(count: int, act: Callable[[int], int]) -> list[int]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(act, range(count), timeout=PATIENCE_S))


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("every", [1, 2, 5])
def test_threads_share_a_client_at_servers_whose_nonces_change(
    clock: Clock, client: Client, every: int, tells: bool
) -> None:
    server = RotatingServer(clock, every=every, tells=tells)
    with httpx2.Client(transport=httpx2.MockTransport(server.in_thread)) as http:

        def act(number: int) -> int:
            resource = (API, OTHER)[number % 2]
            auth = Auth(client, Target(resource))
            answers = [http.get(f"{resource}/report", auth=auth) for _ in range(4)]
            assert {answer.json()["for"] for answer in answers} == {resource}
            return sum(answer.status_code == 200 for answer in answers)

        assert in_threads(THREADS, act) == [4] * THREADS
    assert len(server.tokens) == 2, "one token for each target serves all"


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("count", [6, 40])
async def test_asynchronous_tasks_can_share_a_client_at_a_server_whose_nonces_change(
    clock: Clock, client: Client, count: int, tells: bool
) -> None:
    server = RotatingServer(clock, tells=tells)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(server.in_task)) as http:
        asked = [http.get(f"{API}/{number}", auth=Auth(client, TARGET)) for number in range(count)]
        answers = await asyncio.gather(*asked)
    assert [answer.status_code for answer in answers] == [200] * count
    assert len(server.tokens) == 1


async def test_a_change_of_the_nonce_costs_each_request_one_repetition(clock: Clock, client: Client) -> None:
    """A single change of the nonce does not make the requests wait for each other."""
    server = RotatingServer(clock, every=1_000_000)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(server.in_task)) as http:
        await http.get(f"{API}/first", auth=Auth(client, TARGET))
        server.counts.clear()
        server.statuses.clear()
        server.every = 999_999_937
        server.counts["files.example.org"] = server.every
        await asyncio.gather(*(http.get(f"{API}/{number}", auth=Auth(client, TARGET)) for number in range(8)))
    assert server.statuses == {401: 8, 200: 8}


def test_one_renewal_serves_all_threads_whose_token_was_revoked(clock: Clock, client: Client) -> None:
    server = RotatingServer(clock, every=1_000_000)
    with httpx2.Client(transport=httpx2.MockTransport(server.in_thread)) as http:
        assert http.get(f"{API}/report", auth=Auth(client, TARGET)).json()["token"] == "token-1"
    server.revoked.add("token-1")
    together, auth = threading.Barrier(THREADS), Auth(client, TARGET)

    def answer(request: httpx2.Request) -> httpx2.Response:
        """Return no refusal before every thread has used the revoked token."""
        response = server.in_thread(request)
        if response.status_code == 401:
            together.wait(PATIENCE_S)
        return response

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as http:
        assert in_threads(THREADS, lambda _: http.get(f"{API}/report", auth=auth).status_code) == [200] * THREADS
    assert len(server.tokens) == 2


def test_the_refusal_of_a_token_request_is_raised_in_all_waiting_threads(clock: Clock, client: Client) -> None:
    server = RotatingServer(clock, every=1_000_000)
    server.refuse_tokens = True
    together = threading.Barrier(THREADS)

    with httpx2.Client(transport=httpx2.MockTransport(server.in_thread)) as http:

        def act(_: int) -> int:
            together.wait(PATIENCE_S)
            with pytest.raises(TokenRefused, match="suspended"):
                http.get(f"{API}/report", auth=Auth(client, TARGET))
            return 0

        in_threads(THREADS, act)
    assert len(server.forms) < THREADS


async def test_a_shared_refusal_is_not_logged_as_an_unretrieved_exception(caplog: pytest.LogCaptureFixture) -> None:
    shared = concurrent.futures.Future[None]()
    task = asyncio.create_task(Wait(shared).suspend())
    await asyncio.sleep(0)
    shared.set_exception(TokenRefused("the agent is suspended"))
    await task
    del task, shared
    gc.collect()
    assert caplog.records == []


class _EchoHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        time.sleep(TRANSIT_S)
        self.send_response(200)
        self.send_header("content-length", str(len(self.path)))
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_a_forked_process_does_not_read_responses_of_its_parent(clock: Clock, dice: SeededRandom) -> None:
    """The parent has an idle connection and a flow that runs; a child waits for neither."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _EchoHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        agent = Agent(Credential(KEY, "ag_1", url), now=clock, random=dice)
        assert agent.get(f"{url}/first").text == "/first"
        running = agent._client._shared.run("metadata", agent._client._fetch_metadata)
        next(running)
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                answers = [agent.get(f"{url}/child-{number}").text for number in range(20)]
                waits = next(agent._client._shared.run("metadata", agent._client._fetch_metadata))
                good = answers == [f"/child-{number}" for number in range(20)] and isinstance(waits, httpx2.Request)
                os._exit(0 if good else 1)
            os._exit(2)
        answers = [agent.get(f"{url}/parent-{number}").text for number in range(20)]
        _, status = os.waitpid(child, 0)
        server.shutdown()
        running.close()
        agent.close()
    assert answers == [f"/parent-{number}" for number in range(20)]
    assert os.waitstatus_to_exitcode(status) == 0


async def test_a_cancelled_token_request_does_not_cancel_the_other_waiting_requests(
    clock: Clock, client: Client
) -> None:
    server = RotatingServer(clock, every=1_000_000)
    first, held = asyncio.Event(), asyncio.Event()

    async def answer(request: httpx2.Request) -> httpx2.Response:
        if not first.is_set():
            first.set()
            await held.wait()
        return server(request)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        tasks = [asyncio.create_task(http.get(f"{API}/{n}", auth=Auth(client, TARGET))) for n in range(4)]
        await first.wait()
        tasks[0].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert [one.status_code for one in answers[1:] if isinstance(one, httpx2.Response)] == [200] * 3


def test_a_failed_connection_of_a_token_request_is_raised_in_all_waiting_threads(
    clock: Clock, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.client.steps.LIMIT_S", PATIENCE_S)

    def answer(request: httpx2.Request) -> httpx2.Response:
        time.sleep(0.05)
        raise httpx2.ConnectError("nothing listens there")

    began = threading.Barrier(THREADS)
    with httpx2.Client(transport=httpx2.MockTransport(answer)) as http:

        def act(_: int) -> int:
            began.wait(PATIENCE_S)
            with pytest.raises(httpx2.ConnectError):
                http.get(f"{API}/report", auth=Auth(client, TARGET))
            return 0

        in_threads(THREADS, act)


class BusyServer(Server):
    """Responds to the first `busy` requests for a path with `status`, `Retry-After` and the given challenge, if any."""

    def __init__(
        self, clock: Clock, *, busy: int, after: str = "0", status: int = 503, path: str = "/api/", challenge: str = ""
    ) -> None:
        super().__init__(clock, KEY)
        self.challenge = challenge
        self.busy, self.after, self.status, self.path = busy, after, status, path
        self.refused = 0

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        response = super().__call__(request)
        if response.status_code == 200 and request.url.path.startswith(self.path) and self.refused < self.busy:
            self.refused += 1
            headers = {"retry-after": self.after} if self.after else {}
            headers |= {"www-authenticate": self.challenge} if self.challenge else {}
            return httpx2.Response(self.status, headers=headers)
        return response


@pytest.mark.parametrize(("busy", "status"), [(1, 200), (MAX_PAUSES, 200), (MAX_PAUSES + 1, 503)])
def test_a_request_to_a_busy_server_is_retried_at_most_the_maximum_number_of_times(
    clock: Clock, client: Client, busy: int, status: int
) -> None:
    server = BusyServer(clock, busy=busy)
    http = httpx2.Client(transport=httpx2.MockTransport(server))
    assert http.get(f"{API}/report", auth=Auth(client, TARGET)).status_code == status
    assert server.refused == busy


@pytest.mark.parametrize("status", [503, 429])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "POST", "PATCH"])
def test_only_an_idempotent_or_rate_limited_request_is_retried(
    clock: Clock, client: Client, method: str, status: int
) -> None:
    server = BusyServer(clock, busy=1, status=status)
    http = httpx2.Client(transport=httpx2.MockTransport(server))
    answer = http.request(method, f"{API}/report", auth=Auth(client, TARGET))
    assert answer.status_code == (200 if method in IDEMPOTENT or status == 429 else status)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_request_of_any_method_is_retried_after_a_temporarily_unavailable_challenge(
    clock: Clock, client: Client, method: str
) -> None:
    server = BusyServer(clock, busy=1, challenge='DPoP error="temporarily_unavailable"')
    http = httpx2.Client(transport=httpx2.MockTransport(server))
    assert http.request(method, f"{API}/report", auth=Auth(client, TARGET)).status_code == 200


def test_a_post_is_not_retried_after_a_503_with_another_challenge(clock: Clock, client: Client) -> None:
    server = BusyServer(clock, busy=1, challenge='DPoP algs="ES256"')
    http = httpx2.Client(transport=httpx2.MockTransport(server))
    assert http.post(f"{API}/report", auth=Auth(client, TARGET)).status_code == 503


@pytest.mark.parametrize(
    "after", ["", "11", "soon", "-1", "1.5", "99999999999", formatdate(1_900_000_000, usegmt=True)]
)
def test_a_503_without_a_valid_retry_after_of_at_most_ten_seconds_is_returned_to_the_caller(
    clock: Clock, client: Client, after: str
) -> None:
    server = BusyServer(clock, busy=1, after=after)
    http = httpx2.Client(transport=httpx2.MockTransport(server))
    assert http.get(f"{API}/report", auth=Auth(client, TARGET)).status_code == 503


@pytest.mark.parametrize("seconds", [10, 0])
def test_a_client_waits_for_the_time_in_retry_after(
    clock: Clock, client: Client, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = list[float]()
    monkeypatch.setattr("ostiary.client.steps.time.sleep", waited.append)
    for after in (str(seconds), formatdate(clock() // 1_000_000 + seconds, usegmt=True)):
        server = BusyServer(clock, busy=1, after=after)
        http = httpx2.Client(transport=httpx2.MockTransport(server))
        client._tokens.clear()
        assert http.get(f"{API}/report", auth=Auth(client, TARGET)).status_code == 200
    assert waited == [seconds, seconds]


@pytest.mark.parametrize("path", ["/token", "/.well-known/"])
def test_a_request_to_a_busy_issuer_is_retried(clock: Clock, client: Client, path: str) -> None:
    server = BusyServer(clock, busy=2, path=path)
    http = httpx2.Client(transport=httpx2.MockTransport(server))
    assert run(http, client.token(TARGET)).text
    assert server.refused == 2
