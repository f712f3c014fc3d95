"""Probes of hosts that another party named: fetch a page over HTTP, or the certificate of a TLS server.

A probe checks that a party controls a host name (RFC 8555 section 8.3, RFC 8737). HTTP without TLS and certificates
without a trusted issuer are accepted: a probe sends no secret, and its caller compares the answer with an expected
value.

Which hosts a probe may visit is determined as in `fetch`: every address of the host must be public, or private and
within a network that the operator names; the connection uses the address that was checked; each redirect is checked
like the first URL. Time and size are bounded.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

import httpx2

from ostiary.protocol.denied_networks import Address, Network, is_private, is_public
from ostiary.protocol.errors import Invalid, Unavailable
from ostiaryd.ground.outbound.fetch import REDIRECTS, check_url, follow
from ostiaryd.ground.outbound.resolver import DnsFailed, Resolver

MAX_ADDRESSES = 4
"""Maximum number of addresses of a host that are tried."""


class TlsFailed(Unavailable):
    """The TLS handshake failed, or did not negotiate the required protocol."""

    code = "tls_failed"


class ConnectionFailed(Unavailable):
    """The host cannot be reached, is too slow, or sends too much."""

    code = "connection_failed"


class Denied(Unavailable):
    """The probe may not visit this address or port."""

    code = "private_address"


@dataclass(frozen=True, slots=True)
class Reach:
    """The hosts that probes may visit: the resolver for their names, the permitted private networks, and the permitted
    ports.
    """

    resolver: Resolver
    networks: tuple[Network, ...] = ()
    http_port: int = 80
    tls_port: int = 443

    async def addresses(self, host: str) -> list[Address]:
        """Return the addresses of a host name, or the address if `host` is one. Raises DnsFailed if the name has no
        address, Denied if an address may not be visited.
        """
        try:
            addresses = [ip_address(host)]
        except ValueError:
            addresses = await self.resolver.addresses(host)
        if not addresses:
            raise DnsFailed(f"the name {host} has no address")
        for address in addresses:
            if not is_public(address) and not (is_private(address) and self._is_open(address)):
                hint = "the operator may name its network in `acme_networks`" if is_private(address) else ""
                raise Denied(f"{host} leads to an address that is not public", hint=hint)
        return addresses[:MAX_ADDRESSES]

    def _is_open(self, address: Address) -> bool:
        return any(address in network for network in self.networks if network.version == address.version)


class PeerCertificate(NamedTuple):
    """The certificate that a TLS server presented, and the negotiated application protocol."""

    der: bytes
    protocol: str | None
    """Negotiated application protocol (ALPN, RFC 7301); None for none."""
    version: str


async def visit(url: str, *, reach: Reach, within_s: float, max_bytes: int, max_redirects: int) -> bytes:
    """Return the body of the response 200 at a URL, after at most `max_redirects` redirects, within `within_s` seconds
    in total.

    Raises DnsFailed or ConnectionFailed if the host does not answer, Denied for an address or a port that the server
    must not call, and Invalid for a response that is neither 200 nor a redirect to a valid URL. Too many redirects, and
    a body of more than `max_bytes` bytes, are ConnectionFailed.
    """
    try:
        async with asyncio.timeout(within_s):
            for _ in range(max_redirects + 1):
                status, location, body = await _get(url, reach=reach, max_bytes=max_bytes)
                if status == 200:
                    return body
                if status not in REDIRECTS or not location:
                    raise Invalid(f"the server answers {status} instead of 200 or a redirect with `Location`")
                url = follow(url, location)
            raise ConnectionFailed(f"the server redirects more than {max_redirects} times")
    except TimeoutError:
        raise ConnectionFailed(f"the server took longer than {within_s:g} s") from None


async def _get(url: str, *, reach: Reach, max_bytes: int) -> tuple[int, str, bytes]:
    """Send one GET request. Return the status, the header `Location`, and the body, which is read only for 200."""
    parts = check_url(url, of="the URL of the redirect")
    host = (parts.hostname or "").removesuffix(".")
    port = parts.port or (reach.tls_port if parts.scheme == "https" else reach.http_port)
    ports = sorted({80, 443, reach.http_port, reach.tls_port})
    if port not in ports:
        raise Denied(
            f"the port {port} may not be visited",
            hint=f"let the web server redirect to one of the ports {', '.join(map(str, ports))}",
        )
    headers = {"user-agent": "ostiary", "accept-encoding": "identity", "host": parts.netloc}
    failure = ""
    for address in await reach.addresses(host):
        pinned = httpx2.URL(url).copy_with(host=str(address), port=port)
        try:
            async with (
                httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=None, verify=_tls("")) as client,
                client.stream("GET", pinned, headers=headers, extensions={"sni_hostname": host}) as response,
            ):
                body = await _read_body(response, max_bytes) if response.status_code == 200 else b""
                return response.status_code, response.headers.get("location", ""), body
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            failure = type(error).__name__
    raise ConnectionFailed(f"{host} cannot be reached: {failure}")


async def _read_body(response: httpx2.Response, max_bytes: int) -> bytes:
    """Return the body of a response. Raises ConnectionFailed if it has more than `max_bytes` bytes."""
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise ConnectionFailed(f"the server answers with more than {max_bytes} bytes")
    return body


async def peer_certificate(
    host: str, *, server_name: str, protocol: str, reach: Reach, within_s: float
) -> PeerCertificate:
    """Return the certificate that the TLS server of a host presents for a server name and an application protocol.

    The connection is closed after the handshake. Raises DnsFailed, ConnectionFailed or TlsFailed for a failure at that
    step, Denied for an address that the server must not call.
    """
    failure = ""
    try:
        async with asyncio.timeout(within_s):
            for address in await reach.addresses(host):
                try:
                    _, writer = await asyncio.open_connection(
                        str(address), reach.tls_port, ssl=_tls(protocol), server_hostname=server_name, limit=1 << 10
                    )
                except ssl.SSLError as error:
                    raise TlsFailed(f"the TLS handshake with {host} failed: {error.reason or 'no answer'}") from None
                except ConnectionResetError:
                    raise TlsFailed(f"{host} closed the connection during the TLS handshake") from None
                except OSError as error:
                    failure = type(error).__name__
                    continue
                tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
                shown = PeerCertificate(
                    tls.getpeercert(binary_form=True) or b"", tls.selected_alpn_protocol(), tls.version() or ""
                )
                writer.transport.abort()
                return shown
    except TimeoutError:
        raise ConnectionFailed(f"the server took longer than {within_s:g} s") from None
    raise ConnectionFailed(f"{host} cannot be reached: {failure}")


@lru_cache(maxsize=4)
def _tls(protocol: str) -> ssl.SSLContext:
    """Return a TLS context (1.2 or newer) that accepts every certificate, and offers this application protocol."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if protocol:
        context.set_alpn_protocols([protocol])
    return context
