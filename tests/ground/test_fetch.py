"""Requests to URLs of others: to public addresses only, to the address that was checked, and bounded."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv6Network, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.live_server import free_port
from harness.patience import PATIENCE_S
from ostiary.protocol.denied_networks import Address, is_private, is_public
from ostiary.protocol.errors import Invalid, Unavailable
from ostiaryd.ground.outbound.fetch import MAX_ANSWER, MAX_URL, Answer, check_named, deliver, send_request

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
    return await send_request("GET", url, **given)


async def test_a_response_is_returned_with_any_status(place: Place) -> None:
    place.status, place.body = 404, b"no"
    answer = await send_request(
        "POST", place.url, body=b"hello", headers={"authorization": "Bearer x"}, within_s=PATIENCE_S, private=HERE
    )
    assert answer == Answer(404, "application/json", b"no")
    ((method, path, sent, body),) = place.asked
    assert (method, path, body) == ("POST", "/path?x=1", b"hello")
    assert (sent["authorization"], sent["host"]) == ("Bearer x", f"127.0.0.1:{place.port}")


async def test_a_request_to_an_address_that_is_not_public_is_refused(place: Place) -> None:
    with pytest.raises(Invalid, match="not public") as refused:
        await get(f"https://127.0.0.1:{place.port}/", private=())
    assert refused.value.code == "private_address"
    with pytest.raises(Unavailable, match="not public"):
        await get(f"https://localhost:{place.port}/", private={"127.0.0.1"})
    assert place.asked == []


async def test_a_host_is_refused_if_any_of_its_addresses_is_not_public(monkeypatch: pytest.MonkeyPatch) -> None:
    async def both(*args: Any, **more: Any) -> list[Any]:
        return [(2, 1, 6, "", ("93.184.216.34", 443)), (2, 1, 6, "", ("10.0.0.1", 443))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
    with pytest.raises(Unavailable, match="not public"):
        await get("https://rebound.example/", private=())


async def test_the_name_of_a_host_is_resolved_once_for_check_and_connection(
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
async def test_a_response_of_more_than_the_maximum_size_is_refused(place: Place, size: int, is_taken: bool) -> None:
    place.body = b"x" * size
    if is_taken:
        assert len((await get(place.url, max_bytes=100)).body) == size
    else:
        with pytest.raises(Unavailable, match="more than 100 bytes"):
            await get(place.url, max_bytes=100)


async def test_a_request_without_a_response_ends_at_its_timeout(place: Place) -> None:
    place.silence.clear()
    with pytest.raises(Unavailable, match="longer than"):
        await get(place.url, within_s=0.2)


async def test_a_closed_port_and_an_unknown_host_are_unreachable() -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await get(f"http://127.0.0.1:{free_port()}/")
    with pytest.raises(Unavailable, match="the name nobody.invalid could not be resolved: "):
        await get("https://nobody.invalid/")


PUBLIC = (
    "93.184.216.34",
    "1.1.1.1",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "168.63.129.15",
    "168.63.129.17",
    "2606:2800:220:1::1",
    "2001:200::1",
    "3ffd::1",
    "::ffff:93.184.216.34",
    "64:ff9b::5db8:d822",
)
DENIED = (
    # IPv4 special purpose, at both ends of each network
    "0.0.0.0",
    "0.255.255.255",
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.0",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "169.254.0.0",
    "169.254.169.254",
    "169.254.255.255",
    "172.16.0.0",
    "172.31.255.255",
    "192.0.0.0",
    "192.0.0.8",
    "192.0.0.192",
    "192.0.0.255",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.0.0",
    "192.168.255.255",
    "192.175.48.1",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.0",
    "255.255.255.255",
    # metadata services that have public-looking addresses
    "168.63.129.16",
    "100.100.100.200",
    "192.80.8.124",
    "161.26.0.10",
    "166.8.0.1",
    "166.11.255.255",
    "fd00:ec2::254",
    "fd00:ec2::253",
    "fd20:ce::254",
    "fd00:42::42",
    "fd00:c1::a9fe:a9fe",
    # IPv6 special purpose
    "::",
    "::1",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "feff::1",
    "fc00::1",
    "fdff::1",
    "ff02::1",
    "ff0e::1",
    "100::1",
    "100:0:0:1::1",
    "2001::1",
    "2001:0:7f00:1::",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:1ff:ffff::1",
    "2001:db8::1",
    "2002::1",
    "2002:7f00:1::",
    "2002:5db8:d822::1",
    "3ffe::1",
    "3fff::1",
    "3fff:fff::1",
    "5f00::1",
    "4000::1",
    "1fff::1",
    "e000::1",
    "2620:4f:8000::1",
    # IPv6 addresses that carry an IPv4 address
    "::127.0.0.1",
    "::93.184.216.34",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:168.63.129.16",
    "::ffff:0:127.0.0.1",
    "::ffff:0:93.184.216.34",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::a83f:8110",
    "64:ff9b:1::7f00:1",
    "64:ff9b:1::5db8:d822",
    "64:ff9b:0:0:0:1::1",
)


@pytest.mark.parametrize("address", PUBLIC)
def test_listed_public_addresses_count_as_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("address", DENIED)
def test_denied_addresses_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_addresses_outside_of_the_deny_list_are_global_in_the_registry_of_python(address: Address) -> None:
    assert not is_public(address) or (address.is_global and not address.is_multicast) or address in IPv6Network("::/16")


@pytest.mark.parametrize(
    ("address", "may_be_opened"),
    [
        ("10.0.0.1", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("fd00::1", True),
        ("100.64.0.1", True),
        ("::ffff:10.0.0.1", True),
        ("169.254.169.254", False),
        ("fd00:ec2::254", False),
        ("100.100.100.200", False),
        ("168.63.129.16", False),
        ("192.0.0.192", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("fe80::1", False),
        ("::ffff:169.254.169.254", False),
        ("93.184.216.34", False),
    ],
)
async def test_a_host_that_the_operator_opens_does_not_lead_to_a_metadata_service(
    monkeypatch: pytest.MonkeyPatch, address: str, may_be_opened: bool
) -> None:
    assert is_private(ip_address(address)) is may_be_opened
    if may_be_opened or is_public(ip_address(address)):
        return

    async def found(*args: Any, **more: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
    with pytest.raises(Unavailable, match="not public") as refused:
        await get("https://inside.example/", private={"inside.example"})
    assert refused.value.code == "private_address"


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0",
        "0x0",
        "127.0.0.1.",
        "2130706433.",
        "1.2.3.4.5",
        "0x7f.0.0.1",
        "127.0.0.0x1",
        "example.1",
        "[fe80::1%25lo]",
        "[fe80::1%lo]",
        "[::1%]",
        "%6cocalhost",
        "127%2e0.0.1",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:0:0:1]",
        "[::1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "168.63.129.16",
        "user@example.org",
        "example.org@127.0.0.1",
        "[::1",
        "::1",
        "[v1.x]",
        "",
    ],
)
async def test_an_unusual_spelling_of_a_private_host_is_refused(host: str) -> None:
    with pytest.raises((Invalid, Unavailable)):
        check_named(f"https://{host}/", of="the URL")
    with pytest.raises((Invalid, Unavailable)):
        await get(f"https://{host}/", private=())


@pytest.mark.parametrize("host", ["localhost", "localhost.", "LOCALHOST", "LocalHost:443"])
async def test_each_spelling_of_localhost_is_refused(host: str) -> None:
    with pytest.raises(Unavailable, match="not public"):
        await get(f"https://{host}/", private=())


async def test_a_delivery_is_checked_like_a_request_and_follows_no_redirect(place: Place) -> None:
    with pytest.raises(Invalid, match="must be https"):
        await deliver(place.url, b"{}", headers={}, within_s=PATIENCE_S)
    with pytest.raises(Invalid, match="not public"):
        await deliver(f"https://127.0.0.1:{place.port}/", b"{}", headers={}, within_s=PATIENCE_S)
    assert place.asked == []
    place.status, place.headers["location"] = 307, "http://169.254.169.254/"
    place.body = b"x" * (MAX_ANSWER + 1)
    assert await deliver(place.url, b"{}", headers={}, within_s=PATIENCE_S, private=HERE) == (307, 7)
    assert len(place.asked) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "http://127.0.0.1/",
        "http://localhost/",
        "ftp://example.org/",
        "https://",
        "https:///x",
        "//x",
        "https://a@example.org/",
        "https://example.org/#x",
        "https://example.org:99999/",
        "https://exa mple.org/",
        "https://example.org/\\@x",
        "https://exämple.org/",
        "https://example.org/" + "x" * MAX_URL,
    ],
)
def test_a_malformed_or_insecure_url_is_refused(url: str) -> None:
    with pytest.raises(Invalid):
        check_named(url, of="the URL")


def test_the_error_for_a_url_names_the_part_that_is_wrong() -> None:
    for url in ("ftp://example.org/", "https:///x"):
        with pytest.raises(Invalid, match="must be http") as refused:
            check_named(url, of="the URL")
        assert refused.value.hint == "begin with https:// and a host"
    for url in ("https://a@example.org/", "https://example.org/#x"):
        with pytest.raises(Invalid, match="must not contain a user or a fragment"):
            check_named(url, of="the URL")


def test_a_private_host_is_accepted_only_if_the_operator_names_the_host() -> None:
    assert check_named("https://example.org:8443/a?b=c", of="the URL")
    assert check_named("https://10.0.0.1/", of="the URL", private={"10.0.0.1"})
    with pytest.raises(Invalid, match="not public"):
        check_named("https://10.0.0.1/", of="the URL")
    assert check_named("http://127.0.0.1:1/", of="the URL", private=HERE)
    with pytest.raises(Invalid):
        check_named("http://example.org/", of="the URL", private={"example.org"})
    longest = "https://example.org/"
    assert check_named(longest + "x" * (MAX_URL - len(longest)), of="the URL")
