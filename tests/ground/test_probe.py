"""Probes of hosts of others: open networks only, each redirect checked, bounded; names by configured name servers."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from harness.patience import PATIENCE_S
from ostiary.protocol.denied_networks import Network
from ostiary.protocol.errors import Invalid
from ostiaryd.ground.outbound.probe import ConnectionFailed, Denied, Reach, TlsFailed, peer_certificate, visit
from ostiaryd.ground.outbound.resolver import DnsFailed, Resolver, parse_name_servers
from tests.support.dns_server import DnsServer, name_server
from tests.support.pem import certificate
from tests.support.web_site import WebSite, web_site

LOOPBACK = (ip_network("127.0.0.0/8"),)


@pytest.fixture
def site() -> Iterator[WebSite]:
    with web_site() as made:
        yield made


@pytest.fixture
def zone() -> Iterator[DnsServer]:
    with name_server() as server:
        server.add("host.example", "A", "127.0.0.1")
        yield server


def reach(zone: DnsServer, site: WebSite, networks: tuple[Network, ...] = LOOPBACK) -> Reach:
    return Reach(Resolver(zone.address), networks, http_port=site.port, tls_port=site.port + 1)


async def get(url: str, to: Reach, *, within_s: float = 20, max_bytes: int = 100, max_redirects: int = 3) -> bytes:
    return await visit(url, reach=to, within_s=within_s, max_bytes=max_bytes, max_redirects=max_redirects)


async def test_a_page_is_read_at_the_address_of_the_configured_name_server(zone: DnsServer, site: WebSite) -> None:
    site.answers["/a"] = 200, "", b"yes"
    assert await get("http://host.example/a", reach(zone, site)) == b"yes"
    assert site.asked == [("host.example", "/a")]
    assert zone.asked == [("host.example.", "AAAA"), ("host.example.", "A")]


async def test_a_private_address_is_visited_only_in_an_open_network(zone: DnsServer, site: WebSite) -> None:
    for networks in ((), (ip_network("10.0.0.0/8"),)):
        with pytest.raises(Denied, match="not public"):
            await get("http://host.example/a", reach(zone, site, networks))
    zone.add("host.example", "AAAA", "fd00::1")
    with pytest.raises(Denied, match="not public"):
        await get("http://host.example/a", reach(zone, site))
    assert site.asked == []


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "168.63.129.16", "224.0.0.1", "0.0.0.0", "::ffff:169.254.169.254"]
)
async def test_a_metadata_service_or_special_address_is_denied_with_all_networks_open(
    zone: DnsServer, site: WebSite, address: str
) -> None:
    zone.add("bad.example", "AAAA" if ":" in address else "A", address)
    everything = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    with pytest.raises(Denied):
        await get("http://bad.example/a", reach(zone, site, everything))


async def test_each_redirect_is_checked_like_the_first_url(zone: DnsServer, site: WebSite) -> None:
    zone.add("inside.example", "A", "10.0.0.1")
    site.answers |= {
        "/inside": (302, "http://inside.example/a", b""),
        "/literal": (302, "http://10.0.0.1/a", b""),
        "/spelled": (302, "http://2130706433/a", b""),
        "/port": (302, f"http://host.example:{site.port + 9}/a", b""),
        "/file": (302, "file:///etc/passwd", b""),
        "/user": (302, "http://user@host.example/a", b""),
        "/bracket": (302, "http://[x/a", b""),
        "/relative": (301, "/end", b""),
        "/end": (200, "", b"end"),
    }
    to = reach(zone, site)
    for path, error in {"/inside": Denied, "/literal": Denied, "/port": Denied}.items():
        with pytest.raises(error):
            await get(f"http://host.example{path}", to)
    for path in ("/spelled", "/file", "/user", "/bracket"):
        with pytest.raises(Invalid):
            await get(f"http://host.example{path}", to)
    assert await get("http://host.example/relative", to) == b"end"


async def test_more_than_the_maximum_number_of_redirects_is_an_error(zone: DnsServer, site: WebSite) -> None:
    site.answers |= {f"/{n}": (302, f"/{n + 1}", b"") for n in range(4)} | {"/4": (200, "", b"end")}
    assert await get("http://host.example/1", reach(zone, site)) == b"end"
    with pytest.raises(ConnectionFailed, match="more than 3 times"):
        await get("http://host.example/0", reach(zone, site))


async def test_a_response_to_a_probe_is_bounded_in_size_and_time(zone: DnsServer, site: WebSite) -> None:
    site.answers |= {"/limit": (200, "", b"x" * 100), "/over": (200, "", b"x" * 101)}
    to = reach(zone, site)
    assert await get("http://host.example/limit", to) == b"x" * 100
    with pytest.raises(ConnectionFailed, match="more than 100 bytes"):
        await get("http://host.example/over", to)
    site.silence.clear()
    with pytest.raises(ConnectionFailed, match="longer than"):
        await get("http://host.example/limit", to, within_s=0.2)


async def test_a_status_other_than_success_is_stated_in_the_error(zone: DnsServer, site: WebSite) -> None:
    with pytest.raises(Invalid, match="404"):
        await get("http://host.example/none", reach(zone, site))
    site.answers["/gone"] = 302, "", b""
    with pytest.raises(Invalid, match="302"):
        await get("http://host.example/gone", reach(zone, site))


async def test_a_name_that_does_not_exist_is_a_failure_of_dns(zone: DnsServer, site: WebSite) -> None:
    with pytest.raises(DnsFailed, match="does not exist"):
        await get("http://other.example/a", reach(zone, site))
    with pytest.raises(DnsFailed, match="does not exist"):
        await Resolver(zone.address).texts("other.example")


async def test_txt_strings_are_joined_and_ipv6_addresses_come_first(zone: DnsServer) -> None:
    zone.add("host.example", "TXT", '"one" "two"', '"three"')
    zone.add("host.example", "AAAA", "::1")
    resolver = Resolver(zone.address)
    assert sorted(await resolver.texts("host.example")) == [b"onetwo", b"three"]
    assert [str(one) for one in await resolver.addresses("host.example")] == ["::1", "127.0.0.1"]
    assert "127.0.0.1" in [str(one) for one in await Resolver("").addresses("localhost")]


async def test_a_silent_name_server_is_a_failure_of_dns_in_bounded_time() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        resolver = Resolver(f"127.0.0.1:{silent.getsockname()[1]}", within_s=0.2)
        with pytest.raises(DnsFailed, match="cannot be looked up"):
            await resolver.texts("host.example")


def test_a_name_server_is_an_ip_address_with_an_optional_port() -> None:
    text = "192.0.2.1 192.0.2.2:5353 2001:db8::1 [2001:db8::2] [2001:db8::3]:65535"
    assert parse_name_servers(text) == [
        ("192.0.2.1", 53),
        ("192.0.2.2", 5353),
        ("2001:db8::1", 53),
        ("2001:db8::2", 53),
        ("2001:db8::3", 65535),
    ]
    for wrong in ("dns.example", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:x", "192.0.2.1:", "[::1", "1.2.3"):
        with pytest.raises(Invalid):
            parse_name_servers(wrong)


async def test_a_tls_server_shows_its_certificate_for_a_protocol(
    tmp_path: Path, zone: DnsServer, site: WebSite
) -> None:
    context, file = certificate(tmp_path, "host.example")
    context.set_alpn_protocols(["acme-tls/1"])
    seen: list[str | None] = []
    context.sni_callback = lambda _, name, __: seen.append(name)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            for _ in range(2):
                raw, _address = listener.accept()
                with raw, suppress(OSError), context.wrap_socket(raw, server_side=True) as tls:
                    tls.recv(1)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        to = Reach(Resolver(zone.address), LOOPBACK, tls_port=listener.getsockname()[1])
        shown = await peer_certificate(
            "host.example", server_name="host.example", protocol="acme-tls/1", reach=to, within_s=PATIENCE_S
        )
        assert (shown.protocol, shown.version) == ("acme-tls/1", "TLSv1.3")
        assert shown.der == x509.load_pem_x509_certificate(file.read_bytes()).public_bytes(Encoding.DER)
        closed = Reach(Resolver(zone.address), (), tls_port=to.tls_port)
        with pytest.raises(Denied):
            await peer_certificate(
                "host.example", server_name="x", protocol="acme-tls/1", reach=closed, within_s=PATIENCE_S
            )
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        shown = await peer_certificate(
            "host.example", server_name="host.example", protocol="other", reach=to, within_s=PATIENCE_S
        )
        assert shown.protocol is None
        await asyncio.to_thread(thread.join)  # the loop closes the connection meanwhile
    assert seen == ["host.example", "host.example"]


async def test_a_server_without_tls_is_a_failure_of_tls(zone: DnsServer, site: WebSite) -> None:
    to = Reach(Resolver(zone.address), LOOPBACK, tls_port=site.port)
    with pytest.raises(TlsFailed):
        await peer_certificate(
            "host.example", server_name="host.example", protocol="acme-tls/1", reach=to, within_s=PATIENCE_S
        )
