"""Redirect URIs: which may be registered, and which of those that are sent are registered."""

from __future__ import annotations

import re

import pytest

from ostiary.protocol.uri import MAX_URI
from ostiaryd.trust.model.clients import InvalidRedirectUri, check_redirect_uri, is_registered_uri


@pytest.mark.parametrize(
    "uri",
    [
        "https://app.example/callback",
        "https://app.example",
        "https://app.example/",
        "https://app.example:8443/callback?tenant=1",
        "https://203.0.113.7/callback",
        "https://[2001:db8::1]/callback",
        "https://xn--bcher-kva.example/callback",
        "http://127.0.0.1:3000/callback",
        "http://localhost/callback",
        "http://[::1]:1/",
        "com.example.app:/callback",
        "com.example.app://callback",
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "vscode://publisher.extension/callback?window=1",
    ],
)
def test_a_valid_redirect_uri_is_accepted(uri: str) -> None:
    assert check_redirect_uri(uri) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "/callback",
        "app.example/callback",
        "https://",
        "https:///callback",
        "https:app.example/callback",
        "http://app.example/callback",
        "http://127.0.0.1.example/callback",
        "http://localhost.example/callback",
        "http://127.0.0.2/callback",
        "https://app.example/callback#",
        "https://app.example/callback#x",
        "https://user@app.example/callback",
        "https://user:password@app.example/callback",
        "https://app.example%40evil.example/callback",
        "https://app.example\\@evil.example/callback",
        "https://app.example\\.evil.example/callback",
        "https://app.example/a/../callback",
        "https://app.example/./callback",
        "https://app.example/%2e%2e/callback",
        "https://app.example/%63allback",
        "https://app.example/%2f%zz",
        "https://APP.example/callback",
        "HTTPS://app.example/callback",
        "https://app.example:443/callback",
        "https://app.example:/callback",
        "https://app.example:99999/callback",
        "https://app.example:+1/callback",
        "https://*.example/callback",
        "https://app.example;sandbox/callback",
        "https://app.example,evil.example/callback",
        "https://app.example'/callback",
        "https://app.example(x)/callback",
        "https://.example/callback",
        "https://app..example/callback",
        "https://app.example /callback",
        "https://app.example/call back",
        "https://app.example/callback\r\nset-cookie: a=b",
        "https://app.example/callback\t",
        " https://app.example/callback",
        "https://bücher.example/callback",
        "https://app.example/callbac\u212a",
        "https://2130706433/callback",
        "https://0x7f.1/callback",
        "https://127.1/callback",
        "https://0177.0.0.1/callback",
        "http://[::ffff:127.0.0.1]/callback",
        "https://[0:0:0:0:0:0:0:1]/callback",
        "http://[::1%25eth0]/callback",
        "javascript:alert(1)",
        "javascript://app.example/%0aalert(1)",
        "java.script:alert(1)",
        "data:text/html,x",
        "data.text:,x",
        "file:///etc/passwd",
        "blob:https://app.example/1",
        "vbscript:x",
        "about:blank",
        "ftp://app.example/callback",
        "ws://localhost/callback",
        "urn:ietf:wg:oauth:2.0:oob",
        "myapp:/callback",
        "myapp://callback",
        "cursor:/callback",
        "cursor://callback",
        "cursor://anysphere.cursor-mcp",
        "cursor://user@anysphere.cursor-mcp/callback",
        "cursor://anysphere.cursor-mcp:1/callback",
        "Cursor://anysphere.cursor-mcp/callback",
        "cursor://anysphere.cursor-mcp/call back",
        "xcursor://anysphere.cursor-mcp/callback",
        "cursor://anysphere.cursor-mcp/callback?code=x",
        "com.example.app:/callback?state=x",
        "com.example.app:callback",
        "Com.example.app:/callback",
        "com.example.app:/call back",
        "com..app:/callback",
        ".app:/callback",
    ],
)
def test_an_invalid_redirect_uri_is_refused(uri: str) -> None:
    with pytest.raises(InvalidRedirectUri):
        check_redirect_uri(uri)


def test_a_private_use_scheme_is_refused_for_a_web_client() -> None:
    with pytest.raises(InvalidRedirectUri):
        check_redirect_uri("com.example.app:/callback", is_native=False)


def test_the_scheme_of_an_editor_is_accepted_for_a_web_client() -> None:
    uri = "cursor://anysphere.cursor-mcp/oauth/callback"
    assert check_redirect_uri(uri, is_native=False) == uri


def test_a_redirect_uri_has_a_maximum_length() -> None:
    base = "https://app.example/"
    assert check_redirect_uri(base + "a" * (MAX_URI - len(base)))
    with pytest.raises(InvalidRedirectUri):
        check_redirect_uri(base + "a" * (MAX_URI - len(base) + 1))


@pytest.mark.parametrize(
    ("sent", "registered", "is_registered"),
    [
        ("https://app.example/cb", "https://app.example/cb", True),
        ("https://app.example/cb/", "https://app.example/cb", False),
        ("https://app.example/cb?x=1", "https://app.example/cb", False),
        ("https://app.example:8443/cb", "https://app.example/cb", False),
        ("https://APP.example/cb", "https://app.example/cb", False),
        ("https://app.example/%63b", "https://app.example/cb", False),
        ("http://127.0.0.1:5000/cb", "http://127.0.0.1/cb", True),
        ("http://127.0.0.1/cb", "http://127.0.0.1:5000/cb", True),
        ("http://localhost:65535/cb", "http://localhost:1/cb", True),
        ("http://localhost:65536/cb", "http://localhost:1/cb", False),
        ("http://localhost:0/cb", "http://localhost:1/cb", False),
        ("http://[::1]:2/cb", "http://[::1]:1/cb", True),
        ("http://127.0.0.1:5000/cb2", "http://127.0.0.1/cb", False),
        ("http://127.0.0.1:5000/cb?x=1", "http://127.0.0.1/cb", False),
        ("http://127.0.0.1:5000/cb#x", "http://127.0.0.1/cb", False),
        ("http://localhost:5000/cb", "http://127.0.0.1:5000/cb", False),
        ("http://127.0.0.1:5000@evil.example/cb", "http://127.0.0.1/cb", False),
        ("http://127.0.0.1:5000.evil.example/cb", "http://127.0.0.1/cb", False),
        ("https://127.0.0.1:5000/cb", "https://127.0.0.1/cb", False),
        ("http://127.0.0.1:5000/cb\n", "http://127.0.0.1/cb", False),
        ("http://127.0.0.1:5000", "http://127.0.0.1", True),
        ("com.example.app:/cb", "com.example.app:/cb", True),
        ("com.example.app:/cb2", "com.example.app:/cb", False),
    ],
)
def test_a_sent_redirect_uri_must_equal_a_registered_one_except_for_a_loopback_port(
    sent: str, registered: str, is_registered: bool
) -> None:
    assert is_registered_uri(sent, (registered,)) is is_registered


@pytest.mark.parametrize(
    ("uri", "message", "hint"),
    [
        ("https://*.app.example/callback", "has a wildcard in its host", "register each URI in full"),
        ("https://bücher.example/callback", "not an absolute http or https URI", "xn--"),
        ("https://app.example/ü", "not an absolute http or https URI", "percent-encoded UTF-8"),
        ("https://APP.example/callback", "canonical spelling", "`https://app.example/callback`"),
    ],
)
def test_the_refusal_of_a_redirect_uri_states_what_to_register_instead(uri: str, message: str, hint: str) -> None:
    with pytest.raises(InvalidRedirectUri, match=re.escape(message)) as refused:
        check_redirect_uri(uri)
    assert hint in (refused.value.hint or "")
