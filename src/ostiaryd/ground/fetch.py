"""The one way out: requests to URLs, bounded in time and size.

No redirect is followed, no proxy and no credential taken from the environment. Off this machine it must be https.
What is fetched is not logged: the URL of a webhook may hold a secret.

`deliver` and `Fetcher` go where the operator said. `request` goes where somebody else said (the endpoint of a receiver,
the `jwks_uri` of an issuer), who must not reach through us what only we can reach: every address of the name must be
public, and the connection is made to the very address that was looked at, so a name that changes between gains nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2

from ostiary.core.errors import Invalid, Unavailable

MAX_ANSWER = 64 << 10
MAX_URL = 1000
logging.getLogger("httpx2").setLevel(logging.WARNING)
_HERE = frozenset({"127.0.0.1", "localhost", "::1"})
_NAT64 = IPv6Network("64:ff9b::/96")


def check_origin(url: str, *, name: str) -> None:
    """Whether a configured URL may be fetched from. Raises Invalid."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise Invalid(f"{name} `{url}` must be http(s)://HOST[:PORT][/PATH]")
    if parts.scheme == "http" and parts.hostname not in _HERE:
        raise Invalid(f"{name} off this machine must be https")
    if url.endswith("/"):
        raise Invalid(f"{name} must not end in a slash")


async def deliver(url: str, body: bytes, *, headers: dict[str, str], within_s: float) -> tuple[int, str]:
    """Status and `Retry-After` of the answer to a POST of JSON; what it says is neither read nor kept.

    On a connection of its own, which ends with it. Raises Unavailable, in words that hold nothing of the answer.
    """
    sent = {"content-type": "application/json", "user-agent": "ostiary", **headers}
    try:
        async with (
            asyncio.timeout(within_s),
            httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=within_s) as client,
            client.stream("POST", url, content=body, headers=sent) as response,
        ):
            return response.status_code, response.headers.get("retry-after", "")
    except TimeoutError:
        raise Unavailable(f"it took longer than {within_s:g} s") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unavailable(f"it is not reached: {type(error).__name__}") from None


class Answer(NamedTuple):
    """`media_type` in lower case and without parameters; `retry_after` as it was sent."""

    status: int
    media_type: str
    body: bytes
    retry_after: str


def check_named(url: str, *, of: str, private: Collection[str] = ()) -> str:
    """A URL that somebody else named, as far as it can be judged without asking for its address. Raises Invalid.

    `private`: hosts that the operator lets others name although their addresses are not public.
    """
    parts = urlsplit(url)
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise Invalid(f"{of} is not printable ASCII of at most {MAX_URL} characters")
    try:
        parts.port  # noqa: B018 because reading it is what checks it
    except ValueError:
        raise Invalid(f"{of} has no such port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment or parts.username is not None:
        raise Invalid(f"{of} must be https://HOST[:PORT][/PATH][?QUERY]", hint="no user, no fragment")
    if parts.scheme == "http" and (parts.hostname not in _HERE or parts.hostname not in private):
        raise Invalid(f"{of} must be https")
    return url


async def request(
    method: str,
    url: str,
    *,
    body: bytes = b"",
    headers: Mapping[str, str],
    within_s: float,
    max_bytes: int = MAX_ANSWER,
    private: Collection[str] = (),
) -> Answer:
    """What a URL that somebody else named answers, whatever its status. Raises Invalid, Unavailable.

    On a connection of its own, which ends with it. `private` as in `check_named`.
    """
    check_named(url, of="the URL", private=private)
    try:
        async with asyncio.timeout(within_s):
            return await _request(method, url, body, headers, max_bytes, private)
    except TimeoutError:
        raise Unavailable(f"it took longer than {within_s:g} s") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unavailable(f"it is not reached: {type(error).__name__}") from None


async def _request(
    method: str, url: str, body: bytes, headers: Mapping[str, str], max_bytes: int, private: Collection[str]
) -> Answer:
    parts = urlsplit(url)
    host = parts.hostname or ""
    address = await _address(host, parts.port or (443 if parts.scheme == "https" else 80), is_private=host in private)
    sent = {"user-agent": "ostiary", "accept-encoding": "identity", **headers, "host": parts.netloc}
    there = httpx2.URL(url).copy_with(host=str(address))
    async with (
        httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=None) as client,
        client.stream(method, there, content=body, headers=sent, extensions={"sni_hostname": host}) as response,
    ):
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        answer = b""
        async for chunk in response.aiter_raw():
            answer += chunk
            if len(answer) > max_bytes:
                raise Unavailable(f"it answers with more than {max_bytes} bytes")
        return Answer(response.status_code, kind, answer, response.headers.get("retry-after", ""))


async def _address(host: str, port: int, *, is_private: bool) -> IPv4Address | IPv6Address:
    """Where to connect to. Raises Unavailable unless all that the name leads to is public, or may be private."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Unavailable(f"the name {host} has no address") from None
    addresses = [ip_address(sockaddr[0].partition("%")[0]) for *_, sockaddr in found if isinstance(sockaddr[0], str)]
    if not addresses:
        raise Unavailable(f"the name {host} has no address")
    if not is_private and not all(map(is_public, addresses)):
        raise Unavailable(
            f"the name {host} leads to an address that is not public",
            hint="the operator may name the host in `private_hosts`", code="private_address",
        )  # fmt: skip
    return addresses[0]


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether everybody can reach it. One that carries another inside is as public as that."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if address.teredo is not None:
            return False
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


class Fetcher:
    """Keeps connections to one origin."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._client = httpx2.AsyncClient(follow_redirects=False, trust_env=False)

    async def post(self, path: str, body: bytes, *, within_s: float) -> bytes:
        """The body of a 200 of type JSON. `path` begins with a slash, and its letters need no escape.

        Raises Unavailable, in words that hold nothing of the answer.
        """
        try:
            async with asyncio.timeout(within_s):
                return await self._post(self._origin + path, body)
        except TimeoutError:
            raise Unavailable(f"it took longer than {within_s:g} s", code="engine_failed") from None
        except httpx2.HTTPError as error:
            raise Unavailable(f"it is not reached: {type(error).__name__}", code="engine_failed") from None

    async def _post(self, url: str, body: bytes) -> bytes:
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        async with self._client.stream("POST", url, content=body, headers=headers) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if response.status_code != 200 or kind != "application/json":
                raise Unavailable(f"it answers {response.status_code} of the type {kind[:50]!a}", code="engine_failed")
            answer = b""
            async for chunk in response.aiter_raw():
                answer += chunk
                if len(answer) > MAX_ANSWER:
                    raise Unavailable(f"it answers with more than {MAX_ANSWER} bytes", code="engine_failed")
            return answer

    async def close(self) -> None:
        await self._client.aclose()
