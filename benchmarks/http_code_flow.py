"""Sign-ins a second over HTTP, everything on: a pushed request, the authorization of a person with a session who has
consented, and the token request with DPoP. Beside it: refreshes with rotation, npm `oidc-provider` with the same
requests and a store in memory, the login page, and the lookup of a client among 100,000.

The requests of each step are sent together, and the processor time of the three steps is added. The rate that counts is
the one per processor second of the server's process; the targets assume the ceilings of the reference machine (60,000
ES256 signatures and 47,000 answers of a bare ASGI application per processor second), so the share of the ceilings of
this run is printed too.

Enforced: three entries for each sign-in and one for each refresh, no token twice, the statements, signatures, calls of
functions and hand-overs to threads of each step, and the ratio of lookups and registrations among many clients and
among few.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import multiprocessing.synchronize
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import httpx2
from msgspec.structs import replace

from benchmarks.http_grants import by_table
from benchmarks.load.agents import FILES, ISSUER, SECOND, config
from benchmarks.load.calls import Calls, check_calls
from benchmarks.load.client import Ran, drive, render
from benchmarks.load.machine import CLIENT_CORE, SERVER_CORE, cpu_seconds, on_core, print_ceilings
from benchmarks.load.people import CALLBACK, CHALLENGE, SCOPE, Application, Site, enter_people
from benchmarks.load.server_under_load import ServerUnderLoad, Wrong, server_under_load
from harness.call_counts import count_calls
from ostiary.protocol import dpop, jose
from ostiaryd.app import build_app
from ostiaryd.ground.http.edge import Reply
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger.flows import Act, act
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model.clients import ClientKind, ClientMetadata, ClientState, OAuthClient
from ostiaryd.trust.store import clients

NODE = Path(__file__).parents[1] / "tests" / "node" / "code-flow-provider.mjs"
APPLICATIONS, PEOPLE, FLOWS, RUNS, CONNECTIONS = 1000, 50, 1000, 5, 32
BUSY = 503
FLOW_TARGET, REFRESH_TARGET, LOGIN_TARGET_MS = 800, 3000, 20
OSTIARY = Site(ISSUER, "/par", "/authorize", "/token", f"{ISSUER}/token")
CLIENTS, FEW_CLIENTS, UNUSED = 100_000, 10_000, 4_000
LOOKUPS, ROUND, REGISTRATIONS, STRIDE = 4_000, 500, 300, 7919
SLOWEST = 2
"""Largest permitted ratio of the processor time of a lookup, or a registration, among many clients and among few: a
search without an index would take ten times as long.
"""
EACH = {
    "push": {"authorization_request": 1, "spent": 1, "entry": 1},
    "authorize": {
        "oauth_client": 1,
        "person_session": 2,
        "consent": 1,
        "authorization_request": 3,
        "authorization_code": 1,
        "entry": 1,
    },
    "redeem": {
        "authorization_code": 2,
        "oauth_grant": 2,
        "task": 1,
        "holding": 2,
        "spent": 2,
        "fact": 1,
        "entry": 1,
    },
    "refresh": {"oauth_grant": 2, "task": 1, "holding": 1, "spent": 2, "fact": 1, "entry": 1},
}
"""Statements of a step by the table that they are about, on both connections, when all that it rests on was seen
before.
"""
SHARED = {"pragma": 1, "begin": 1, "spent": 1, "task": 1, "loss)": 1, "log_head": 1, "subtree": 1, "commit": 1}
"""Largest number of statements of a batch beside these."""
CALLS = {
    "push": Calls(verifications=1, signatures=0, most=600),
    "authorize": Calls(verifications=0, signatures=0, most=720),
    "redeem": Calls(verifications=2, signatures=1, most=1080),
    "refresh": Calls(verifications=2, signatures=1, most=900),
}
AT_ONCE, FEW_AT_ONCE = 64, 16
"""Sign-ins at once whose statements are counted, and whose calls are counted, which makes each call slower."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running authorization server: its port, its process, and the applications that it knows."""

    port: int
    pid: int
    applications: Sequence[Application]

    def turn(self, number: int) -> Application:
        return self.applications[number % len(self.applications)]

    def nonce(self, code: str) -> str:
        """The DPoP nonce that the server asks for, when the first application redeems that code without one."""
        ran = drive(self.port, [self.turn(0).redeem(code, None)], connections=1)
        found = re.search(rb"(?i)\r\ndpop-nonce: *([^\r]+)", ran.heads[0])
        if found is None:
            raise Wrong(f"the server asks for no nonce: {ran.bodies[0]!r}")
        return found[1].decode()


class Answer(NamedTuple):
    status: int
    head: bytes
    body: bytes


@dataclass(slots=True)
class Spent:
    """Processor seconds of the server, and seconds of the wall, for each step."""

    cpu: dict[str, float]
    wall: dict[str, float]

    def send(self, server: Server, step: str, requests: Sequence[bytes], *, status: int) -> list[Answer]:
        """Send the requests of a step, again where the server says that it is busy. Raises Wrong for another status."""
        answers, due = dict[int, Answer](), list(range(len(requests)))
        with on_core(CLIENT_CORE):
            began, self.wall[step] = cpu_seconds(server.pid), 0.0
            while due:
                ran = drive(server.port, [requests[number] for number in due], connections=CONNECTIONS)
                answers |= dict(zip(due, map(Answer, ran.statuses, ran.heads, ran.bodies), strict=True))
                due = [number for number in due if answers[number].status == BUSY]
                self.wall[step] += ran.seconds
            self.cpu[step] = cpu_seconds(server.pid) - began
        for one in answers.values():
            if one.status != status:
                raise Wrong(f"{step}: {one.status} instead of {status}: {one.body[:500]!r}")
        return [answers[number] for number in range(len(requests))]


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_ceilings(folder / "ceilings")
        with on_core(SERVER_CORE):  # so that no thread verifies signatures ahead of an act
            asyncio.run(_count(folder / "counted"))
        _measure_ostiary(folder / "ostiary")
        with _oidc_provider(folder) as peer:
            _measure_flows("oidc-provider", peer, scope=f"openid offline_access {SCOPE}", alg="ES256")
        asyncio.run(_measure_lookups(folder / "clients"))
    return 0


def _measure_ostiary(folder: Path) -> None:
    applications = asyncio.run(_settle(folder))
    with server_under_load(folder) as station:
        server = Server(station.port, station.pid, applications)
        before = station.entries()
        flows = _measure_flows("ostiary, OAuth", server, scope=SCOPE, target=FLOW_TARGET, refresh_target=REFRESH_TARGET)
        if (left := station.entries() - before) != flows:
            raise Wrong(f"{flows} entries were expected, and {left} were left")
        for alg, first in (("RS256", 0), ("ES256", 1)):
            half = Server(station.port, station.pid, applications[first::2])
            _measure_flows(f"ostiary, OpenID, {alg}", half, scope=f"openid {SCOPE}", alg=alg)
        _measure_login(station, server)


async def _settle(folder: Path) -> list[Application]:
    async with open_world(config(folder)) as world:
        return await enter_people(world, OSTIARY, applications=APPLICATIONS, people=PEOPLE)


def _measure_flows(
    name: str, server: Server, *, scope: str, alg: str = "", target: int = 0, refresh_target: int = 0
) -> int:
    """Print the medians of the runs; return the number of entries that they must leave. Raises Wrong."""
    flows, refreshes, seen = list[Spent](), list[Spent](), set[str]()
    for _ in range(RUNS + 1):  # the first one warms up
        flows.append(Spent({}, {}))
        tokens, nonce = _run_flows(server, flows[-1], scope=scope, alg=alg)
        refreshes.append(Spent({}, {}))
        requests = [server.turn(number).refresh(token["refresh_token"], nonce) for number, token in enumerate(tokens)]
        renewed = refreshes[-1].send(server, "refresh", requests, status=200)
        for body in (*tokens, *(json.loads(answer.body) for answer in renewed)):
            if body["access_token"] in seen or body["refresh_token"] in seen or body["token_type"] != "DPoP":
                raise Wrong(f"a token was issued twice, or is bound to no key: {body}")
            seen |= {body["access_token"], body["refresh_token"]}
    _print(f"{name}: flows", flows[1:], target=target)
    for step in flows[0].cpu:
        _print(f"  {step}", [Spent({step: one.cpu[step]}, {step: one.wall[step]}) for one in flows[1:]])
    _print(f"{name}: refreshes", refreshes[1:], target=refresh_target)
    return (RUNS + 1) * 4 * FLOWS  # a request that is asked for a nonce leaves no entry


def _run_flows(server: Server, spent: Spent, *, scope: str, alg: str) -> tuple[list[dict[str, str]], str]:
    """Run the three steps of `FLOWS` sign-ins; return the token responses, and the nonce. Raises Wrong."""
    is_openid = "openid" in scope
    extra = {"nonce": "n"} if is_openid else {}
    pushed = spent.send(
        server, "push", [server.turn(number).push(scope, **extra) for number in range(FLOWS)], status=201
    )
    opened = [server.turn(number).authorize(answer.body) for number, answer in enumerate(pushed)]
    answered = spent.send(server, "authorize", opened, status=303)
    codes = [_code(answer.head) for answer in answered]
    nonce = server.nonce(codes[0])
    redeemed = spent.send(
        server, "redeem", [server.turn(number).redeem(code, nonce) for number, code in enumerate(codes)], status=200
    )
    tokens: list[dict[str, str]] = [json.loads(answer.body) for answer in redeemed]
    for token in tokens:
        if ("id_token" in token) is not is_openid or (alg and _alg(token["id_token"]) != alg):
            raise Wrong(f"the ID token is missing, or of another algorithm: {token}")
    return tokens, nonce


def _code(head: bytes) -> str:
    location = re.search(rb"(?i)\r\nlocation: *([^\r]+)", head + b"\r\n")
    answer = parse_qs(urlsplit(location[1].decode() if location else "").query)
    if "code" not in answer:
        raise Wrong(f"the authorization endpoint answers without a code: {head!r}")
    return answer["code"][0]


def _alg(token: str) -> str:
    return str(json.loads(jose.unb64u(token.split(".")[0]))["alg"])


def _print(name: str, spent: Sequence[Spent], *, target: int = 0) -> None:
    cpu = statistics.median(FLOWS / sum(one.cpu.values()) for one in spent)
    wall = statistics.median(FLOWS / sum(one.wall.values()) for one in spent)
    goal = f"   target {target:6,}: {'met' if cpu >= target else 'NOT met'}" if target else ""
    print(f"{name:38}{wall:9,.0f} /s wall{cpu:10,.0f} /cpu-s{goal}", flush=True)


# --- the peer


@contextmanager
def _oidc_provider(folder: Path) -> Iterator[Server]:
    """Run npm `oidc-provider` on the server's core, with as many applications and people."""
    keys = [jose.generate("ES256") for _ in range(APPLICATIONS)]
    names = [f"app-{number}" for number in range(APPLICATIONS)]
    registered = [
        {
            "client_id": name,
            "redirect_uris": [CALLBACK],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_signing_alg": "ES256",
            "id_token_signed_response_alg": "ES256",
            "dpop_bound_access_tokens": True,
            "jwks": {"keys": [dict(key.public.jwk)]},
        }
        for name, key in zip(names, keys, strict=True)
    ]
    people = [f"person-{number}" for number in range(PEOPLE)]
    signing = {alg: json.dumps(jose.generate(alg).jwk() | {"use": "sig"}) for alg in ("ES256", "RS256")}
    environment = {"PATH": os.environ["PATH"], "NODE_ENV": "production"}
    environment |= {f"{alg}_KEY": key for alg, key in signing.items()}
    settings = folder / "oidc-provider.json"
    settings.write_text(json.dumps({"clients": registered, "resource": FILES, "accounts": people}))
    with on_core(SERVER_CORE):
        process = subprocess.Popen(
            ["node", NODE, settings],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    assert process.stdout is not None
    port = int(process.stdout.readline())
    uri = "http://127.0.0.1/token"  # it reads the header `Host`, in which the client names no port
    site = Site(f"http://127.0.0.1:{port}", "/request", "/auth", "/token", uri)
    try:
        cookies = [_log_in(site, names[0], person) for person in people]
        pairs = enumerate(zip(names, keys, strict=True))
        applications = [Application(site, name, key, cookies[number % PEOPLE]) for number, (name, key) in pairs]
        yield Server(port, process.pid, applications)
    finally:
        process.terminate()
        process.wait()


def _log_in(site: Site, client_id: str, person: str) -> str:
    """Return the cookies of a browser in which a person has signed in at the peer. Raises Wrong."""
    query = {
        "client_id": client_id,
        "response_type": "code",
        "redirect_uri": CALLBACK,
        "scope": "openid",
        "login_hint": person,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    with httpx2.Client(trust_env=False) as browser:
        url = f"{site.issuer}{site.authorize_path}?{urlencode(query)}"
        while url.startswith(site.issuer):
            response = browser.get(url)
            if "location" not in response.headers:
                raise Wrong(f"the peer does not sign a person in: {response.status_code} {response.text[:500]}")
            url = urljoin(url, response.headers["location"])
        return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())


# --- the login page


def _measure_login(station: ServerUnderLoad, server: Server) -> None:
    """Print the latency of the login page, alone and beside sign-ins that never pause."""
    page = render("GET", "/login?return_to=%2Faccount")
    _print_login("login page", _open_login(station.port, page))
    stop = multiprocessing.get_context("fork").Event()
    load = multiprocessing.get_context("fork").Process(target=_keep_loading, args=(server, stop))
    load.start()
    try:
        _print_login("  beside sign-ins without a pause", _open_login(station.port, page))
    finally:
        stop.set()
        load.join()
    if load.exitcode != 0:
        raise Wrong("the load beside the login page failed")


def _open_login(port: int, page: bytes) -> Ran:
    with on_core(CLIENT_CORE):
        drive(port, [page] * 50, connections=1)
        ran = drive(port, [page] * 1000, connections=1)
    if set(ran.statuses) != {200}:
        raise Wrong(f"the login page answers {set(ran.statuses)}")
    return ran


def _print_login(name: str, ran: Ran) -> None:
    p50, p99 = ran.quantile(0.5) * 1000, ran.quantile(0.99) * 1000
    verdict = "met" if p99 <= LOGIN_TARGET_MS else "NOT met"
    print(f"{name:38}p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   target p99 {LOGIN_TARGET_MS} ms: {verdict}", flush=True)


def _keep_loading(server: Server, stop: multiprocessing.synchronize.Event) -> None:
    while not stop.is_set():
        _run_flows(server, Spent({}, {}), scope=SCOPE, alg="")


# --- many clients


async def _measure_lookups(folder: Path) -> None:
    """Compare the processor time of lookups and registrations among few clients and among many. Raises Wrong."""
    async with open_world(config(folder)) as world:
        for kind in (ClientKind.DOCUMENT, ClientKind.DYNAMIC):
            spent = dict[int, tuple[float, float]]()
            for count in (FEW_CLIENTS, CLIENTS):
                await _store_clients(world, kind, count)
                spent[count] = await _time_lookups(world, kind, count), await _time_registrations(world)
                look_up, register = (f"{seconds * 1e6:6.0f} us" for seconds in spent[count])
                name = f"{count:,} clients, {kind.value}"
                print(f"{name:38}processor time of a lookup {look_up}, of a registration {register}", flush=True)
            for what, few, many in zip(("a lookup", "a registration"), spent[FEW_CLIENTS], spent[CLIENTS], strict=True):
                if many > SLOWEST * few:
                    raise Wrong(f"{what} takes {many / few:.2f} times as long among {CLIENTS:,} clients")


async def _store_clients(world: World, kind: ClientKind, count: int) -> None:
    """Store clients that people have agreed to, and as many without a use as the server keeps, less some."""
    metadata = ClientMetadata(redirect_uris=(CALLBACK,), client_name="Measured")
    client = OAuthClient(
        client_id="",
        handle="",
        kind=kind,
        state=ClientState.ACTIVE,
        metadata=metadata,
        digest=metadata.digest(),
        created_at=world.now(),
        changed_at=world.now(),
        fresh_until=world.now() + 86_400 * SECOND,
    )

    def store(act: Act, first: int) -> None:
        for number in range(first, min(first + 1000, count)):
            used_at = None if number < UNUSED else act.now
            id, handle = _client_id(kind, number), f"cl_{kind.value}{number}"
            clients.put(act.tx, replace(client, client_id=id, handle=handle, used_at=used_at))

    for first in range(0, count, 1000):
        await act(world, "bench.clients", partial(store, first=first))


def _client_id(kind: ClientKind, number: int) -> str:
    return f"https://app.example.org/{number}.json" if kind is ClientKind.DOCUMENT else f"cl_{number:032x}"


async def _time_lookups(world: World, kind: ClientKind, count: int) -> float:
    """Return the processor seconds of an authorization request without a session, for another client each time, in the
    best round.
    """
    target = build_app(world).router.find_target("GET", b"/authorize")
    assert target is not None
    endpoint = target.endpoint
    query = {
        "response_type": "code",
        "redirect_uri": CALLBACK,
        "scope": "openid",
        "prompt": "none",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    rounds = list[float]()
    for first in range(0, LOOKUPS, ROUND):
        began = time.process_time()
        for number in range(first, first + ROUND):
            client_id = _client_id(kind, UNUSED + number * STRIDE % (count - UNUSED))
            text = urlencode(query | {"client_id": client_id})
            reply, _ = await endpoint.answer("GET", "/authorize", params={}, query=text, headers=[], body=b"")
            if b"error=login_required" not in dict(reply.headers).get(b"location", b""):
                raise Wrong(f"{client_id}: {reply.status} {reply.body!r}")
        rounds.append((time.process_time() - began) / ROUND)
    return min(rounds)


async def _time_registrations(world: World) -> float:
    """Return the processor seconds of a registration, each from another network, and delete what it made."""
    made = list[str]()

    def register(act: Act, number: int) -> None:
        metadata = {"redirect_uris": [CALLBACK], "client_name": "New"}
        network = f"198.51.{number % 250}.0/24"
        registration = trust.register_client(act, metadata, unverified_token=None, network=network, config=world.config)
        made.append(registration.client.client_id)

    rounds = list[float]()
    for first in range(0, REGISTRATIONS, REGISTRATIONS // 3):
        began = time.process_time()
        for number in range(first, first + REGISTRATIONS // 3):
            await act(world, "client.register", partial(register, number=number))
        rounds.append((time.process_time() - began) / (REGISTRATIONS // 3))

    def forget(act: Act) -> None:
        for client_id in made:
            clients.delete(act.tx, client_id)

    await act(world, "bench.forget", forget)
    return min(rounds)


# --- counts


async def _count(folder: Path) -> None:
    """Count the SQL statements and the calls of the four steps of sign-ins at once. Raises Wrong."""
    statements: list[str] = []
    async with open_world(config(folder)) as world:
        applications = await enter_people(world, OSTIARY, applications=AT_ONCE, people=AT_ONCE)
        router = build_app(world).router
        nonce = dpop.make_nonce(world.keys.secret("nonce"), b"as", world.now())

        async def ask(request: bytes) -> Reply:
            """The answer to a rendered request."""
            head, _, body = request.partition(b"\r\n\r\n")
            line, *fields = head.decode("latin-1").split("\r\n")
            method, target, _ = line.split(" ")
            found = router.find_target(method, target.encode())
            assert found is not None
            headers = [(name.encode(), value.encode()) for name, _, value in (one.partition(": ") for one in fields)]
            reply, _ = await found.endpoint.answer(
                method, found.path, params=found.params, query=found.query, headers=headers, body=body
            )
            return reply

        async def step(name: str, requests: Sequence[bytes], status: int) -> list[Reply]:
            statements.clear()
            with count_calls() if len(requests) == FEW_AT_ONCE else nullcontext() as calls:
                replies = await asyncio.gather(*map(ask, requests))
            if {reply.status for reply in replies} != {status}:
                raise Wrong(f"{name}: {[reply.status for reply in replies]} {replies[0].body!r}")
            asked = by_table(statements)
            if calls is not None:
                check_calls(name, calls, len(requests), CALLS[name], batches=asked["commit"])
            elif asked:  # nothing is counted while the server is cold
                _check_counts(name, asked, len(requests))
            return replies

        async def sign_in(some: Sequence[Application]) -> None:
            pushed = await step("push", [one.push() for one in some], 201)
            opened = [one.authorize(reply.body) for one, reply in zip(some, pushed, strict=True)]  # type: ignore[arg-type]
            answered = await step("authorize", opened, 303)
            codes = [_code(b"\r\nlocation: " + dict(reply.headers)[b"location"]) for reply in answered]
            redeemed = await step(
                "redeem", [one.redeem(code, nonce) for one, code in zip(some, codes, strict=True)], 200
            )
            tokens = [json.loads(reply.body)["refresh_token"] for reply in redeemed]  # type: ignore[arg-type]
            await step("refresh", [one.refresh(token, nonce) for one, token in zip(some, tokens, strict=True)], 200)

        await sign_in(applications)  # the first time, the keys and the policies are read
        for connection in (world.writer._connection, world.db.read()._connection):
            connection._raw.set_trace_callback(statements.append)  # type: ignore[attr-defined]
        await sign_in(applications)
        await sign_in(applications[:FEW_AT_ONCE])


def _check_counts(name: str, asked: dict[str, int], count: int) -> None:
    """Print and check the statements of a step. Raises Wrong."""
    batches, each = asked["commit"], EACH[name]
    shared = {table: asked.get(table, 0) - each.get(table, 0) * count for table in asked | each}
    if any(not 0 <= left <= SHARED.get(table, 0) * batches for table, left in shared.items()) or batches > count // 8:
        raise Wrong(f"{name}: {count} at once asked the database for {asked}, not for {count} times {each}")
    print(f"{count} {name} at once: {sum(each.values())} statements each, {batches} commits")


if __name__ == "__main__":
    sys.exit(main())
