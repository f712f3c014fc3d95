"""Requests to other servers, bounded in time and size.

No redirect is followed; no proxy and no credential is taken from the environment. Off this machine, a URL must be
https. A fetched URL is never logged: the URL of a webhook may hold a secret.

`Fetcher` sends requests to an origin that the configuration names. `send_request` and `deliver` send requests to URLs
that another party named through the API or in a message: webhooks, receivers and transmitters of signals, `jwks_uri`,
threat lists. Such a party must not reach hosts through this server that only this server can reach. Every address of
the host must therefore be public (`denied_networks`), and the connection uses the address that was checked, so that a
change of the name in between has no effect.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx2

from ostiary.protocol.denied_networks import Address, is_private, is_public
from ostiary.protocol.destination import is_address_like
from ostiary.protocol.errors import Invalid, Unavailable

MAX_ANSWER = 64 << 10
MAX_URL = 1000
REDIRECTS = frozenset((301, 302, 303, 307, 308))
logging.getLogger("httpx2").setLevel(logging.WARNING)
_HERE = frozenset({"127.0.0.1", "localhost", "::1"})


def check_origin(url: str, *, name: str) -> None:
    """Check that a configured URL is https, or http to this machine, and has no query, fragment or final slash. `name`
    is the setting in errors. Raises Invalid if the check fails.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise Invalid(f"{name} `{url}` must be http(s)://HOST[:PORT][/PATH]")
    if parts.scheme == "http" and parts.hostname not in _HERE:
        raise Invalid(f"{name} `{url}` is not of this machine, so it must be https")
    if url.endswith("/"):
        raise Invalid(f"{name} `{url}` must not end in a slash")


class Answer(NamedTuple):
    """An HTTP response. `media_type` is in lower case and without parameters; the other headers are unchanged."""

    status: int
    media_type: str
    body: bytes
    cache_control: str = ""
    location: str = ""


def check_named(url: str, *, of: str, private: Collection[str] = ()) -> str:
    """Check a URL that another party named, and return the URL. Raises Invalid unless it is https, or http to a host of
    this machine that is in `private`.

    `of` names the URL in errors. `private` are hosts that the operator permits although their addresses are not public.
    An IP address in the URL must be public, or in `private`. The addresses of a host name are checked later, at each
    request, because they can change.
    """
    parts = check_url(url, of=of)
    host = parts.hostname or ""
    literal = _literal(host, of=of)
    if parts.scheme == "http" and (host not in _HERE or host not in private):
        raise Invalid(f"{of} must be https", hint="http is for hosts of this machine that `private_hosts` names")
    if literal is not None:
        _check_reachable(host, [literal], private=private)
    return url


def check_url(url: str, *, of: str) -> SplitResult:
    """Return the parts of an http or https URL. Raises Invalid for a malformed or too long URL, a user, a fragment, or
    an IP address that is not in its usual spelling.
    """
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        limit = f"at most {MAX_URL} characters, all printable ASCII, without spaces and backslashes"
        raise Invalid(f"{of} must have {limit}", hint="write other characters as %XX")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 because reading the port checks it
        httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL):
        raise Invalid(f"{of} is not a valid URL", hint="use https://HOST[:PORT][/PATH][?QUERY]") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid(f"{of} must be http(s)://HOST[:PORT][/PATH][?QUERY]", hint="begin with https:// and a host")
    if parts.fragment or parts.username is not None:
        raise Invalid(f"{of} must not contain a user or a fragment", hint="remove `USER@` and `#FRAGMENT`")
    _literal(parts.hostname, of=of)
    return parts


def follow(url: str, location: str) -> str:
    """Return the URL to which a redirect of `url` leads, not checked (RFC 9110 section 10.2.2). Raises Invalid for a
    redirect without a valid URL.
    """
    try:
        return urljoin(url, location)
    except ValueError:
        raise Invalid("the redirect does not lead to a valid URL") from None


def _literal(host: str, *, of: str) -> Address | None:
    """Return the address if `host` is an IP address; None if it is a name. Raises Invalid for an unusual spelling of an
    address.

    Resolvers also accept `2130706433`, `0x7f.1` and `127.1` as addresses, which people who read a list of hosts do not
    recognise.
    """
    if "%" in host:
        raise Invalid(f"{of} has a `%` in its host", hint="write the host without escapes and without a zone")
    try:
        return ip_address(host) if is_address_like(host) else None
    except ValueError:
        raise Invalid(
            f"{of} has a host that is not an IP address in its usual spelling",
            hint="write the address as 203.0.113.7 or [2001:db8::1]",
        ) from None


class PeerTrust(NamedTuple):
    """The certificates that a server may present, instead of a certificate for its host name."""

    roots: tuple[bytes, ...]
    """Trusted certificates, in DER."""
    check: Callable[[bytes], None]
    """Function that raises Invalid if the certificate (DER) belongs to another server."""


@asynccontextmanager
async def _sending(
    method: str,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    within_s: float,
    private: Collection[str],
    ca_file: str = "",
    peer: PeerTrust | None = None,
    *,
    ca_pem: str = "",
) -> AsyncIterator[httpx2.Response]:
    """Send a request on a new connection, and yield the response, whose body is not read yet. Raises Invalid for a URL
    that the server must not call, Unavailable if the remote server fails.
    """
    check_named(url, of="the URL", private=private)
    parts = urlsplit(url)
    host = (parts.hostname or "").removesuffix(".")
    sent = {"user-agent": "ostiary", "accept-encoding": "identity", **headers, "host": parts.netloc}
    try:
        async with asyncio.timeout(within_s):
            address = await _resolve(host, parts.port or (443 if parts.scheme == "https" else 80), private=private)
            pinned_url = httpx2.URL(url).copy_with(host=str(address))
            async with (
                httpx2.AsyncClient(
                    follow_redirects=False,
                    trust_env=False,
                    timeout=None,
                    verify=_tls(ca_file, ca_pem) if peer is None else _tls_of(peer.roots),
                ) as client,
                client.stream(
                    method, pinned_url, content=body, headers=sent, extensions={"sni_hostname": host}
                ) as response,
            ):
                if peer is not None:
                    tls = response.extensions["network_stream"].get_extra_info("ssl_object")
                    peer.check(tls.getpeercert(binary_form=True))
                yield response
    except TimeoutError:
        raise Unavailable(f"the remote server took longer than {within_s:g} s") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unavailable(f"the remote server cannot be reached: {type(error).__name__}") from None


@lru_cache(maxsize=64)
def _tls(ca_file: str, ca_pem: str) -> ssl.SSLContext:
    """Return a TLS context that trusts the authorities of the system and those in the file `ca_file`. If `ca_pem` is
    given, trust only the authorities in it.

    Raises Unavailable if the file or the authorities cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if ca_pem else httpx2.create_ssl_context(trust_env=False)
    try:
        if ca_pem:
            context.load_verify_locations(cadata=ca_pem)
            return context
        if ca_file:
            context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Unavailable(f"cannot read the certificate authorities {ca_file or 'in PEM'}: {error}") from None
    return context


@lru_cache(maxsize=64)
def _tls_of(roots: tuple[bytes, ...]) -> ssl.SSLContext:
    """Return a TLS context that trusts only these certificates, for any host name. Raises Unavailable if the
    certificates are missing or malformed.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=b"".join(roots))
    except (ValueError, ssl.SSLError):
        raise Unavailable("the certificate authorities of the remote server are missing or malformed") from None
    return context


async def send_request(
    method: str,
    url: str,
    *,
    body: bytes = b"",
    headers: Mapping[str, str],
    within_s: float,
    max_bytes: int = MAX_ANSWER,
    private: Collection[str] = (),
    ca_file: str = "",
    peer: PeerTrust | None = None,
    ca_pem: str = "",
) -> Answer:
    """Send a request to a URL that another party named, and return the response, with any status. Raises Invalid for a
    URL that the server must not call (`check_named`, also for `private`), Unavailable if the remote server fails or
    answers with more than `max_bytes` bytes.

    The authorities in `ca_file` are trusted in addition to those of the system, the authorities in `ca_pem` instead of
    them. With `peer`, the server is authenticated only by `peer`, before its response is read.
    """
    async with _sending(method, url, body, headers, within_s, private, ca_file, peer, ca_pem=ca_pem) as response:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        answer = b""
        async for chunk in response.aiter_raw():
            answer += chunk
            if len(answer) > max_bytes:
                raise Unavailable(f"the remote server answers with more than {max_bytes} bytes")
        sent = response.headers
        return Answer(
            response.status_code,
            kind,
            answer,
            ", ".join(sent.get_list("cache-control")),
            sent.get("location", ""),
        )


async def deliver(
    url: str,
    body: bytes,
    *,
    headers: Mapping[str, str],
    within_s: float,
    private: Collection[str] = (),
    ca_file: str = "",
) -> tuple[int, int]:
    """Send a POST request to a URL that another party named; its body is JSON unless `headers` states another content
    type. Return the status, and the seconds of the header `Retry-After` of the response (0 without it, or if it is a
    date).

    The body of the response is not read. `ca_file` has the meaning that it has in `send_request`. Raises Invalid for a
    URL that the server must not call, Unavailable if the remote server fails.
    """
    sent = {"content-type": "application/json", **headers}
    async with _sending("POST", url, body, sent, within_s, private, ca_file) as response:
        return response.status_code, _read_seconds(response.headers.get("retry-after", ""))


def _read_seconds(retry_after: str) -> int:
    text = retry_after[:10]
    return int(text) if text.isascii() and text.isdecimal() else 0


async def _resolve(host: str, port: int, *, private: Collection[str]) -> Address:
    """Return the address to which to connect. Raises Unavailable if the name cannot be resolved, or unless every
    address of `host` may be reached.
    """
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        problem = (error.strerror if isinstance(error, OSError) else None) or "not a host name"
        hint = "check the spelling of the name, and the name servers of the machine on which the server runs"
        raise Unavailable(f"the name {host} could not be resolved: {problem}", hint=hint) from None
    addresses = [ip_address(sockaddr[0].partition("%")[0]) for *_, sockaddr in infos if isinstance(sockaddr[0], str)]
    if not addresses:
        raise Unavailable(f"the name {host} has no address")
    try:
        _check_reachable(host, addresses, private=private)
    except Invalid as refusal:
        raise Unavailable(refusal.message, hint=refusal.hint, code=refusal.code) from None
    return addresses[0]


def _check_reachable(host: str, addresses: Collection[Address], *, private: Collection[str]) -> None:
    """Check that every address of a host is public, or that the host is in `private`. Raises Invalid otherwise."""
    for address in addresses:
        if is_public(address) or (host in private and is_private(address)):
            continue
        hint = "the operator may name the host in `private_hosts`" if is_private(address) else ""
        raise Invalid(f"the name {host} leads to an address that is not public", hint=hint, code="private_address")


class Fetcher:
    """A client for one origin, which keeps its connections open."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._client = httpx2.AsyncClient(follow_redirects=False, trust_env=False)

    async def post(self, path: str, body: bytes, *, within_s: float) -> bytes:
        """Send a POST request, and return the body of the response, which must be 200 with JSON. `path` begins with a
        slash, and needs no escapes.

        Raises Unavailable, with a message that contains nothing of the response.
        """
        try:
            async with asyncio.timeout(within_s):
                return await self._post(self._origin + path, body)
        except TimeoutError:
            raise Unavailable(f"the remote server took longer than {within_s:g} s", code="engine_failed") from None
        except httpx2.HTTPError as error:
            raise Unavailable(
                f"the remote server cannot be reached: {type(error).__name__}", code="engine_failed"
            ) from None

    async def _post(self, url: str, body: bytes) -> bytes:
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        async with self._client.stream("POST", url, content=body, headers=headers) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if response.status_code != 200 or kind != "application/json":
                raise Unavailable(
                    f"the remote server answers {response.status_code} of the type {kind[:50]!a}, not 200 with JSON",
                    code="engine_failed",
                )
            answer = b""
            async for chunk in response.aiter_raw():
                answer += chunk
                if len(answer) > MAX_ANSWER:
                    raise Unavailable(
                        f"the remote server answers with more than {MAX_ANSWER} bytes", code="engine_failed"
                    )
            return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
