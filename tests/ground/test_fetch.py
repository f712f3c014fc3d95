"""What goes out to where others said: to public addresses only, to the one that was looked at, and bounded."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

import pytest

from ostiary.core.errors import Invalid, Unavailable
from ostiaryd.ground.fetch import MAX_URL, Answer, check_named, is_public, request

HERE = frozenset({"127.0.0.1", "localhost"})


class Place:
    """A server on this machine: what it answers, and what it was asked."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.status, self.body = 200, b"{}"
        self.headers: dict[str, str] = {"content-type": "Application/JSON; charset=utf-8", "retry-after": "7"}
        self.silence = threading.Event()
        self.silence.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/path?x=1"


@pytest.fixture
def place() -> Iterator[Place]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            sent = {name.lower(): value for name, value in self.headers.items()}
            made.asked.append((self.command, self.path, sent, body))
            made.silence.wait()
            self.send_response(made.status)
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(made.body)))
            self.end_headers()
            self.wfile.write(made.body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Place(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.silence.set()
    server.shutdown()
    server.server_close()
    thread.join()


async def get(url: str, **said: Any) -> Answer:
    given: dict[str, Any] = {"headers": {}, "within_s": 20, "private": HERE} | said
    return await request("GET", url, **given)


async def test_what_is_answered_comes_back_whatever_its_status(place: Place) -> None:
    place.status, place.body = 404, b"no"
    answer = await request(
        "POST", place.url, body=b"hello", headers={"authorization": "Bearer x"}, within_s=20, private=HERE
    )
    assert answer == Answer(404, "application/json", b"no", "7")
    ((method, path, sent, body),) = place.asked
    assert (method, path, body) == ("POST", "/path?x=1", b"hello")
    assert (sent["authorization"], sent["host"]) == ("Bearer x", f"127.0.0.1:{place.port}")


async def test_an_address_that_is_not_public_is_not_called(place: Place) -> None:
    with pytest.raises(Unavailable, match="not public") as refused:
        await get(f"https://127.0.0.1:{place.port}/", private=())
    assert refused.value.code == "private_address"
    with pytest.raises(Unavailable, match="not public"):
        await get(f"https://localhost:{place.port}/", private={"127.0.0.1"})
    assert place.asked == []


async def test_one_address_that_is_not_public_among_others_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    async def both(*args: Any, **more: Any) -> list[Any]:
        return [(2, 1, 6, "", ("93.184.216.34", 443)), (2, 1, 6, "", ("10.0.0.1", 443))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
    with pytest.raises(Unavailable, match="not public"):
        await get("https://rebound.example/", private=())


async def test_the_name_is_looked_up_once_so_that_it_cannot_change(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, loop = [], asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def counted(host: str | bytes, *args: Any, **more: Any) -> Any:
        asked.append(host.decode() if isinstance(host, bytes) else host)
        return await real("127.0.0.1", *args, **more)

    monkeypatch.setattr(loop, "getaddrinfo", counted)
    await get(f"http://localhost:{place.port}/")
    assert asked.count("localhost") == 1, "what connects was given the address"
    assert place.asked[0][2]["host"] == f"localhost:{place.port}"


async def test_no_redirect_is_followed(place: Place) -> None:
    place.status = 307
    place.headers["location"] = place.url
    assert (await get(place.url)).status == 307
    assert len(place.asked) == 1


@pytest.mark.parametrize(("size", "is_taken"), [(99, True), (100, True), (101, False)])
async def test_an_answer_has_a_longest_size(place: Place, size: int, is_taken: bool) -> None:
    place.body = b"x" * size
    if is_taken:
        assert len((await get(place.url, max_bytes=100)).body) == size
    else:
        with pytest.raises(Unavailable, match="more than 100 bytes"):
            await get(place.url, max_bytes=100)


async def test_who_never_answers_is_left(place: Place) -> None:
    place.silence.clear()
    with pytest.raises(Unavailable, match="longer than"):
        await get(place.url, within_s=0.2)


async def test_who_is_not_there_is_not_reached() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unavailable, match="not reached"):
        await get(f"http://127.0.0.1:{port}/")
    with pytest.raises(Unavailable, match="no address"):
        await get("https://nobody.invalid/")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True), ("::ffff:93.184.216.34", True),
        ("64:ff9b::5db8:d822", True), ("127.0.0.1", False), ("10.1.2.3", False), ("172.16.0.1", False),
        ("192.168.1.1", False), ("169.254.169.254", False),
        ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False), ("::", False),
        ("::1", False), ("fe80::1", False), ("fd00::1", False), ("ff02::1", False), ("::ffff:169.254.169.254", False),
        ("64:ff9b::a9fe:a9fe", False), ("2002:a9fe:a9fe::1", False), ("2001:0:0:1::1", False),
    ],
)  # fmt: skip
def test_what_everybody_can_reach(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/", "http://127.0.0.1/", "ftp://example.org/", "https://", "https:///x", "//x",
        "https://a@example.org/", "https://example.org/#x", "https://example.org:99999/", "https://exa mple.org/",
        "https://example.org/\\@x", "https://exämple.org/", "https://example.org/" + "x" * MAX_URL,
    ],
)  # fmt: skip
def test_what_is_no_url_to_go_to(url: str) -> None:
    with pytest.raises(Invalid):
        check_named(url, of="the URL")


def test_the_operator_names_what_is_private() -> None:
    assert check_named("https://example.org:8443/a?b=c", of="the URL")
    assert check_named("https://10.0.0.1/", of="the URL"), "its address is looked at when it is called"
    assert check_named("http://127.0.0.1:1/", of="the URL", private=HERE)
    with pytest.raises(Invalid):
        check_named("http://example.org/", of="the URL", private={"example.org"})
    longest = "https://example.org/"
    assert check_named(longest + "x" * (MAX_URL - len(longest)), of="the URL")
