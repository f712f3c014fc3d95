"""Which requests a local proxy takes, and which of their headers go further."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.keys import Credential
from ostiary.protocol import jose
from ostiary.protocol.errors import Invalid
from ostiary.proxy import Entrance, Listen, capability_of
from ostiary.proxy.entrance import Rejected, filter_request_headers, filter_response_headers
from ostiary.proxy.upstream import check_url

CAPABILITY = "capability-of-this-test"
ENTRANCE = Entrance(Listen("127.0.0.1", 8701), CAPABILITY)
HOST = (b"host", b"127.0.0.1:8701")


def code_of(entrance: Entrance, target: str, *headers: tuple[bytes, bytes], method: str = "GET") -> str:
    """`ok`, or why the request is rejected."""
    try:
        entrance.check(method, target, list(headers) or [HOST])
    except Rejected as refusal:
        return refusal.code
    return "ok"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (f"/{CAPABILITY}", ""),
        (f"/{CAPABILITY}/", "/"),
        (f"/{CAPABILITY}/a/b?x=1&y=%2F", "/a/b?x=1&y=%2F"),
        (f"/{CAPABILITY}?x=../..", "?x=../.."),
        (f"/{CAPABILITY}/a/...", "/a/..."),
        (f"/{CAPABILITY}/a.b/..c", "/a.b/..c"),
        (f"/{CAPABILITY}/a;..?x=100%", "/a;..?x=100%"),
    ],
)
def test_the_path_after_the_capability_is_the_requested_path(target: str, path: str) -> None:
    assert ENTRANCE.check("GET", target, [HOST]) == path


@pytest.mark.parametrize(
    "target", ["/", "", "/x", f"/{CAPABILITY[:-1]}", f"/{CAPABILITY}x/a", f"//{CAPABILITY}", f"/a/{CAPABILITY}", "/%63"]
)
def test_a_request_without_the_capability_is_rejected(target: str) -> None:
    assert code_of(ENTRANCE, target) in ("not_found", "no_forward_proxy")


@pytest.mark.parametrize(
    "segment",
    [
        "..",
        ".",
        "%2e%2e",
        "%2E.",
        ".%2e",
        "a/..",
        "..\\x",
        "a%2f..",
        "x%5c..",
        "..%2Fx",
        "..;",
        "..;a=b",
        ".%3Bx",
        "%zz",
        "a%",
        "%2",
    ],
)
def test_a_path_with_dot_segments_or_malformed_escapes_is_rejected(segment: str) -> None:
    assert code_of(ENTRANCE, f"/{CAPABILITY}/{segment}/secret") == "invalid_path"


@pytest.mark.parametrize(
    ("method", "target"),
    [("CONNECT", "evil.example:443"), ("GET", "http://evil.example/"), ("OPTIONS", "*"), ("CONNECT", f"/{CAPABILITY}")],
)
def test_a_forward_proxy_request_is_rejected(method: str, target: str) -> None:
    assert code_of(ENTRANCE, target, method=method) == "no_forward_proxy"


@pytest.mark.parametrize(
    ("listen", "host", "is_ours"),
    [
        ("127.0.0.1:8701", "127.0.0.1:8701", True),
        ("127.0.0.1:8701", "localhost:8701", True),
        ("127.0.0.1:8701", "LOCALHOST:8701", True),
        ("127.0.0.1:8701", "[::1]:8701", True),
        ("127.0.0.1:8701", "127.0.0.1", False),
        ("127.0.0.1:80", "127.0.0.1", True),
        ("127.0.0.1:8701", "127.0.0.1:8702", False),
        ("127.0.0.1:8701", "evil.example:8701", False),
        ("127.0.0.1:8701", "127.0.0.1.evil.example:8701", False),
        ("127.0.0.1:8701", "192.0.2.7:8701", False),
        ("127.0.0.1:8701", "", False),
        ("127.0.0.1:8701", "evil.example@127.0.0.1:8701", False),
        ("[::1]:8701", "[::1]:8701", True),
        ("0.0.0.0:8701", "192.0.2.7:8701", True),
        ("0.0.0.0:8701", "evil.example:8701", False),
        ("proxy.example:8701", "proxy.example:8701", True),
    ],
)
def test_a_request_with_a_foreign_host_header_is_rejected(listen: str, host: str, is_ours: bool) -> None:
    entrance = Entrance(Listen.parse(listen), CAPABILITY)
    assert (code_of(entrance, f"/{CAPABILITY}", (b"host", host.encode())) == "ok") is is_ours


def test_a_request_with_two_host_headers_is_rejected() -> None:
    assert code_of(ENTRANCE, f"/{CAPABILITY}", HOST, HOST) == "wrong_host"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ((b"origin", b"https://evil.example"), "foreign_origin"),
        ((b"origin", b"null"), "foreign_origin"),
        ((b"origin", b"http://127.0.0.1:3000"), "foreign_origin"),
        ((b"origin", b"http://127.0.0.1:8701"), "ok"),
        ((b"sec-fetch-site", b"cross-site"), "foreign_origin"),
        ((b"sec-fetch-site", b"same-site"), "foreign_origin"),
        ((b"sec-fetch-site", b"none"), "ok"),
        ((b"sec-fetch-mode", b"cors"), "ok"),
        ((b"upgrade", b"websocket"), "no_upgrade"),
    ],
)
def test_requests_of_foreign_web_pages_and_upgrades_are_rejected(header: tuple[bytes, bytes], code: str) -> None:
    assert code_of(ENTRANCE, f"/{CAPABILITY}", HOST, header) == code


def test_a_proxy_without_a_capability_and_a_unix_socket_accept_any_path() -> None:
    assert Entrance(Listen("127.0.0.1", 8701), "").check("GET", "/a?b", [HOST]) == "/a?b"
    assert Entrance(Listen.parse("unix:/run/x"), "").check("GET", "/a", [(b"host", b"anything")]) == "/a"


def test_the_base_url_for_clients_has_the_address_and_the_capability() -> None:
    assert ENTRANCE.base == f"http://127.0.0.1:8701/{CAPABILITY}"
    assert Entrance(Listen.parse("[::1]:9"), "").base == "http://[::1]:9"


@pytest.mark.parametrize("text", ["", "8701", ":8701", "127.0.0.1", "127.0.0.1:65536", "127.0.0.1:x", "a:b:1"])
def test_a_malformed_listen_address_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="HOST:PORT"):
        Listen.parse(text)


@pytest.mark.parametrize(
    ("listen", "is_local"),
    [("127.0.0.2:1", True), ("localhost:1", True), ("[::1]:1", True), ("unix:x", True), ("0.0.0.0:1", False)],
)
def test_a_loopback_address_and_a_unix_socket_are_local(listen: str, is_local: bool) -> None:
    assert Listen.parse(listen).is_local is is_local


def test_a_capability_depends_on_the_credential_and_on_the_server() -> None:
    key = jose.generate("ES256")
    one = Credential(key, "ag_1", "https://issuer.example")
    assert capability_of(one, "https://a.example") == capability_of(one, "https://a.example")
    others = [
        capability_of(one, "https://b.example"),
        capability_of(Credential(jose.generate("ES256"), "ag_1", "https://issuer.example"), "https://a.example"),
        capability_of(Credential(key, "ag_1", "https://issuer.example", "secret"), "https://a.example"),
    ]
    assert len({capability_of(one, "https://a.example"), *others}) == 4
    assert all(len(other) >= 22 for other in others)


def test_connection_and_credential_headers_of_a_client_are_not_forwarded() -> None:
    named = [b"authorization", b"dpop", b"host", b"origin", b"te", b"trailer", b"upgrade", b"proxy-authorization"]
    named += [b"connection", b"keep-alive", b"transfer-encoding", b"sec-fetch-mode", b"expect", b"referer"]
    kept = [(b"accept", b"text/event-stream"), (b"mcp-session-id", b"1"), (b"last-event-id", b"7"), (b"cookie", b"c")]
    assert filter_request_headers([(name, b"x") for name in named] + kept) == kept


def test_challenge_and_connection_headers_of_a_server_are_not_forwarded() -> None:
    named = [b"www-authenticate", b"dpop-nonce", b"access-control-allow-origin", b"alt-svc", b"connection", b"upgrade"]
    kept = [
        (b"content-type", b"text/event-stream"),
        (b"mcp-session-id", b"1"),
        (b"set-cookie", b"a"),
        (b"content-encoding", b"gzip"),
    ]
    assert filter_response_headers([(name, b"x") for name in named] + kept) == kept


def test_headers_that_the_connection_header_names_are_dropped() -> None:
    assert filter_request_headers([(b"connection", b"close, X-Hop"), (b"x-hop", b"1"), (b"x-end", b"1")]) == [
        (b"x-end", b"1")
    ]


@given(target=st.text(max_size=60), header=st.tuples(st.binary(max_size=20), st.binary(max_size=20)))
def test_any_request_target_is_forwarded_unchanged_or_rejected(target: str, header: tuple[bytes, bytes]) -> None:
    try:
        path = ENTRANCE.check("GET", target, [HOST, header])
    except Rejected:
        return
    assert target == f"/{CAPABILITY}{path}"


@pytest.mark.parametrize(
    ("url", "fits"),
    [
        ("https://notes.example/mcp", True),
        ("http://127.0.0.1:1", True),
        ("http://127.0.0.1:65535/", True),
        ("http://127.0.0.1:65536/", False),
        ("http://127.0.0.1:0/", False),
        ("http://127.0.0.1:${PORT}/", False),
        ("http://[::1", False),
        ("ftp://notes.example", False),
        ("https://", False),
        ("", False),
        ("https://u:p@notes.example", False),
        ("https://notes.example?x", False),
        ("https://notes.example#x", False),
    ],
)
def test_the_server_behind_a_proxy_has_an_http_url_without_user_query_and_fragment(url: str, fits: bool) -> None:
    if fits:
        check_url(url)
        return
    with pytest.raises(Invalid, match="is not an http or https URL without user, query and fragment"):
        check_url(url)
