"""The tools of an MCP server over HTTP: the probe requests the server's lists once, as a client does.

The probe tries both generations of streamable HTTP: `server/discover` (2026-07-28), and the handshake (up to
2025-11-25). The size of the answers is bounded. The answers become a catalogue that is marked as proposed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2

from ostiary.protocol import canonical
from ostiary.protocol.errors import Invalid, Malformed, Unavailable
from ostiary.run.probe import HANDSHAKE, MAX_BYTES, MODERN, MODERN_META, OURS, error_of, read_lists

TIMEOUT_S = 20.0
ACCEPT = "application/json, text/event-stream"
_HEADER_VALUE = re.compile(r"([!-~]([\t -~]*[!-~])?)?")
_LINE_END = re.compile(rb"\r\n|\n|\r")


def probe_http(url: str, *, headers: Mapping[str, str] | None = None, is_sse: bool = False) -> dict[str, Any]:
    """Return the lists of the MCP server, all pages together, and its capabilities (`read_lists`).

    Raises Unavailable if the server does not answer, or answers with status 401 or 403; Malformed or Invalid for
    answers that are not lists of MCP; Invalid for a text that is not a URL, and for a header that is not in ASCII
    or has a value that HTTP does not allow (RFC 9110, section 5.5). The error does not contain the value, which may be
    a secret.
    """
    if wrong := [name for name, value in (headers or {}).items() if not (name + value).isascii()]:
        raise Invalid(f"the header {wrong[0]!a} is not in ASCII", hint="write other characters percent-encoded")
    if wrong := [name for name, value in (headers or {}).items() if not _HEADER_VALUE.fullmatch(value)]:
        raise Invalid(
            f"the header {wrong[0]!a} has a control character, or a blank at the beginning or end of its value",
            hint="correct the value in the configuration, or the variable that it names",
        )
    try:
        with httpx2.Client(timeout=TIMEOUT_S, headers=headers or {}) as http:
            return (_SseProbe if is_sse else _Probe)(http, url).run()
    except httpx2.InvalidURL as error:
        raise Invalid(f"{url!a} is not a URL: {error}", hint="give a URL such as https://notes.example/mcp") from None
    except httpx2.HTTPError as error:
        raise Unavailable(f"{url} does not answer: {error}", hint="check that the server is running") from None


class _Probe:
    """A client that requests the lists of a server once."""

    def __init__(self, http: httpx2.Client, url: str) -> None:
        self._http, self._url, self._id = http, url, 0
        self._headers = {"Accept": ACCEPT, "MCP-Protocol-Version": MODERN}
        self._meta: dict[str, Any] | None = MODERN_META

    def run(self) -> dict[str, Any]:
        try:
            capabilities = self._request("server/discover", {}).get("capabilities", {})
        except Invalid:
            capabilities = self._shake_hands()
        listing = read_lists(self._request, capabilities, asks_tools=True)
        if "Mcp-Session-Id" in self._headers:
            self._http.delete(self._url, headers=self._headers)
        return listing

    def _shake_hands(self) -> Any:
        """Start a session (MCP 2025-11-25, lifecycle), and return the server's capabilities."""
        self._meta, self._headers = None, {"Accept": ACCEPT}
        hello = {"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": OURS}
        result = self._request("initialize", hello)
        self._headers["MCP-Protocol-Version"] = str(result.get("protocolVersion", HANDSHAKE))[:32]
        self._send({"method": "notifications/initialized"})
        return result.get("capabilities", {})

    def _request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request, and return the result. Raises Invalid if the server answers with an error."""
        self._id += 1
        meta = {} if self._meta is None else {"_meta": self._meta}
        named = {"Mcp-Method": method} if self._meta is not None else {}
        for message in self._send({"id": self._id, "method": method, "params": {**params, **meta}}, named):
            if message.get("id") == self._id and isinstance(result := message.get("result"), dict):
                return result
            if message.get("id") == self._id or "error" in message:
                raise error_of(method, message)
        raise Invalid(f"{self._url} sends no answer to {method}", hint="check that the URL is that of an MCP server")

    def _send(self, message: Mapping[str, Any], more: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Send one message, and return the messages of the answer. Raises Unavailable for the status 401 or 403."""
        body = canonical.encode({"jsonrpc": "2.0", **message})
        headers = {**self._headers, **(more or {}), "Content-Type": "application/json"}
        with self._http.stream("POST", self._url, content=body, headers=headers) as response:
            if (session := response.headers.get("mcp-session-id")) is not None:
                self._headers["Mcp-Session-Id"] = session
            if response.status_code in (401, 403):
                raise Unavailable(
                    f"{self._url} answers {response.status_code}",
                    hint="add the headers that the server requires to the configuration",
                )
            return [
                parsed
                for text in _texts(response)
                if isinstance(parsed := canonical.parse(text, max_bytes=MAX_BYTES, max_depth=64), dict)
            ]


class _SseProbe(_Probe):
    """A probe over HTTP with Server-Sent Events (MCP 2024-11-05): answers come on one stream."""

    def run(self) -> dict[str, Any]:
        with self._http.stream("GET", self._url, headers={"Accept": "text/event-stream"}) as response:
            self._events = _texts(response, is_endless=True)
            self._url = _message_url(response.url, next(self._events, b"").decode("latin-1").strip())
            return super().run()

    def _send(self, message: Mapping[str, Any], more: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        body = canonical.encode({"jsonrpc": "2.0", **message})
        answered = self._http.post(self._url, content=body, headers={"Content-Type": "application/json"})
        if not answered.is_success:
            raise Invalid(
                f"{self._url} answers {message['method']} with the status {answered.status_code}",
                hint="check the URL and the headers of the server",
            )
        while "id" in message:
            parsed = canonical.parse(next(self._events, b""), max_bytes=MAX_BYTES, max_depth=64)
            if isinstance(parsed, dict) and parsed.get("id") == message["id"] and "method" not in parsed:
                return [parsed]
        return []


def _message_url(stream: httpx2.URL, named: str) -> str:
    """Return the URL for messages that the first event states. Raises Malformed if the event has no valid URL, or if
    the URL has another origin than the stream.
    """
    try:
        url = stream.join(named)
    except httpx2.InvalidURL:
        url = None
    if not named or url is None:
        raise Malformed(
            f"the stream of {stream} does not begin with the URL for messages",
            hint="check that the URL is that of an MCP server with the transport SSE",
        )
    if (url.scheme, url.host, url.port) != (stream.scheme, stream.host, stream.port):
        raise Malformed(
            f"the URL for messages, {named[:200]!a}, has another origin than the stream {stream}",
            hint="correct the URL for messages in the configuration of the MCP server",
        )
    return str(url)


def _texts(response: httpx2.Response, *, is_endless: bool = False) -> Iterator[bytes]:
    """Yield the JSON texts of an answer. For Server-Sent Events: the data of each event, up to the first event with a
    result or an error.

    `is_endless`: yield the data of all events. Raises Invalid for more than MAX_BYTES.
    """
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    if kind == "text/event-stream":
        for text in _events(response):
            yield text
            if not is_endless and (b'"result"' in text or b'"error"' in text):
                return
        return
    body = b"".join(_parts(response))
    if body.strip() and kind == "application/json":
        yield body


def _events(response: httpx2.Response) -> Iterator[bytes]:
    """Yield the data of each event of a stream of Server-Sent Events that has data."""
    data = list[bytes]()
    for line in _lines(response):
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            text = b"\n".join(data)
            data = []
            if text.strip():
                yield text


def _lines(response: httpx2.Response) -> Iterator[bytes]:
    """Yield the lines of a stream of Server-Sent Events as they arrive (HTML, section 9.2.5)."""
    buffer, is_after_return = bytearray(), False
    for part in _parts(response):
        rest = part.removeprefix(b"\n") if is_after_return else part  # "\r\n" in two parts is one end
        is_after_return = rest.endswith(b"\r")
        first, *lines = _LINE_END.split(rest)
        buffer += first
        for line in lines:
            yield bytes(buffer)
            buffer = bytearray(line)


def _parts(response: httpx2.Response) -> Iterator[bytes]:
    """Yield the parts of the body as they arrive. Raises Invalid for more than MAX_BYTES."""
    size = 0
    for part in response.iter_bytes():
        size += len(part)
        if size > MAX_BYTES:
            raise Invalid(f"the MCP server answers with more than {MAX_BYTES >> 20} MiB")
        yield part
