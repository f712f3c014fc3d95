"""The server behind a proxy, to which the proxy forwards each request of a client with a token and a proof.

This module handles nonces, renewals of the token and step-ups (`ostiary.client`), so that a client need not. The token
is sent only to the origin of the URL with which the proxy was started. Redirects are not followed. In a redirect to the
same server, the client gets the corresponding URL of the proxy.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urlsplit

import httpx2

from ostiary.protocol.errors import Invalid, Refused, Unavailable
from ostiary.proxy.entrance import Headers, Rejected, filter_request_headers, filter_response_headers

MAX_BODY = 64 << 20
"""Maximum size of the body of a request, in bytes."""
IN_MEMORY = 1 << 20
"""Maximum number of bytes of a body that are stored in memory; a larger body is stored in a temporary file."""
CHUNK = 64 << 10
CONNECT_S = 10.0
WRITE_S = 60.0
CONNECT_RETRIES = 3
"""Maximum number of connection retries. No part of a request is sent before a connection exists, so any method may be
retried.
"""


class Body:
    """The body of a request, read as it arrives, and kept so that it can be sent again if the first
    attempt is refused.
    """

    def __init__(self, receive: Callable[[], Awaitable[bytes]], *, max_bytes: int) -> None:
        """Read a body by `receive`, which returns the next part; an empty part is the end."""
        self._receive, self._max = receive, max_bytes
        self._kept = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 because `close` closes it
        self._size, self._is_complete = 0, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        at = 0
        while True:
            if at < self._size:
                self._kept.seek(at)
                part = self._kept.read(CHUNK)
            elif self._is_complete:
                return
            elif not (part := await self._receive()):
                self._is_complete = True
                return
            else:
                self._keep(part)
            at += len(part)
            yield part

    def _keep(self, part: bytes) -> None:
        if self._size + len(part) > self._max:
            raise too_large(self._max)
        self._kept.seek(self._size)
        self._kept.write(part)
        self._size += len(part)

    def close(self) -> None:
        """Delete the stored parts."""
        self._kept.close()


def too_large(max_bytes: int) -> Rejected:
    """Return the refusal of a body that is larger than `max_bytes`."""
    return Rejected(
        413, "body_too_large", f"the request body is over {max_bytes >> 20} MiB", hint="send a smaller body"
    )


def check_url(url: str) -> None:
    """Check the URL of a server behind a proxy. Raises Invalid if `url` is not an http or https URL, or if it has a
    user, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        is_server = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_server = False
    if not is_server or parts.query or parts.fragment or "@" in url:
        raise Invalid(
            f"{url!a} is not an http or https URL without user, query and fragment",
            hint="give a URL such as https://notes.example/mcp",
        )


class Upstream:
    """The server behind a proxy. `url`: the URL at the server that corresponds to the base URL of the proxy."""

    def __init__(self, url: str, auth: httpx2.Auth | None) -> None:
        """Prepare requests to the server at `url`. Raises Invalid if `url` is not an http or https URL, or if it has a
        user, a query or a fragment.
        """
        check_url(url)
        self._exact, self.url, self._auth = url, url.rstrip("/"), auth
        self._http = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(retries=CONNECT_RETRIES, limits=httpx2.Limits()),
            timeout=httpx2.Timeout(CONNECT_S, write=WRITE_S, read=None),  # a stream may be silent for long
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    async def close(self) -> None:
        """Close the connections to the server."""
        await self._http.aclose()

    @asynccontextmanager
    async def send(self, method: str, path: str, headers: Headers, body: Body | None) -> AsyncIterator[httpx2.Response]:
        """Send a client's request and yield the response, whose body is not read yet. Raises Rejected if there is no
        token for the request, the server cannot be reached, or the path is not valid.
        """
        try:
            request = httpx2.Request(method, self._target(path), headers=self._requested(headers), content=body)
            response = await self._http.send(request, auth=self._auth, stream=True)
        except Rejected:
            raise
        except Unavailable as refusal:
            raise Rejected(503, refusal.code, refusal.message, hint=refusal.hint) from refusal
        except Refused as refusal:
            raise Rejected(403, refusal.code, refusal.message, hint=refusal.hint) from refusal
        except httpx2.InvalidURL as error:
            raise Rejected(400, "invalid_path", f"the path is not valid: {error}") from error
        except httpx2.TimeoutException as error:
            raise Rejected(504, "upstream_timeout", f"{self.url} does not answer: {error or 'timeout'}") from error
        except httpx2.HTTPError as error:
            raise Rejected(502, "upstream_failed", f"{self.url} cannot be reached: {error}") from error
        try:
            yield response
        finally:
            await response.aclose()

    def _target(self, path: str) -> str:
        """Return the URL at the server that corresponds to a path at the proxy."""
        return (self.url if path.startswith("/") else self._exact) + path

    def _requested(self, headers: Headers) -> Headers:
        return filter_request_headers(headers)

    def answer(self, response: httpx2.Response, *, base: str) -> tuple[int, Headers]:
        """Return the status and the headers for the client of the proxy at `base`.

        A 401 of the server becomes 403, because after a 401 the client itself would request a token. Raises Rejected
        for a redirect to an invalid URL.
        """
        status = 403 if response.status_code == 401 else response.status_code
        headers = filter_response_headers([(name.lower(), value) for name, value in response.headers.raw])
        if response.is_stream_consumed:  # the body was already read and decoded here
            headers = [(name, value) for name, value in headers if name not in (b"content-encoding", b"content-length")]
            headers.append((b"content-length", str(len(response.content)).encode()))
        if (place := response.headers.get("location")) is not None:
            try:
                local = self._local(str(response.request.url.join(place)), base)
            except httpx2.InvalidURL as error:
                raise Rejected(502, "upstream_failed", f"the server redirects to an invalid URL: {error}") from error
            headers.append((b"location", local.encode("ascii", "ignore")))
        return status, headers

    async def parts(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        """Yield the parts of the body of a response as they arrive from the upstream server."""
        if response.is_stream_consumed:
            yield response.content
            return
        async for part in response.aiter_raw():
            yield part

    def _local(self, url: str, base: str) -> str:
        """Return the URL at the proxy for a URL at the server; any other URL is returned unchanged."""
        rest = url[len(self.url) :]
        return base + rest if url.startswith(self.url) and rest[:1] in ("", "/", "?", "#") else url
