"""URI normalisation: RFC 3986 sections 6.2.2 and 6.2.3, and malformed URIs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.protocol.errors import Malformed
from ostiary.protocol.uri import MAX_URI, add_query, normalise_uri


@pytest.mark.parametrize(
    ("uri", "normal"),
    [
        ("https://a.example/x", "https://a.example/x"),
        ("https://a.example", "https://a.example/"),
        ("https://a.example?q", "https://a.example/"),
        ("https://a.example#f", "https://a.example/"),
        ("https://a.example/x?q=1/2#f?g", "https://a.example/x"),
        ("HTTPS://A.Example/X", "https://a.example/X"),
        ("https://a.example:443/", "https://a.example/"),
        ("https://a.example:/", "https://a.example/"),
        ("https://a.example:00443/", "https://a.example/"),
        ("https://a.example:80/", "https://a.example:80/"),
        ("http://a.example:80/", "http://a.example/"),
        ("http://a.example:443/", "http://a.example:443/"),
        ("http://a.example:65535/", "http://a.example:65535/"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("http://[FE80::A]/", "http://[fe80::a]/"),
        ("https://%41.example/", "https://a.example/"),
        ("https://a%c3%a4.example/", "https://a%C3%A4.example/"),
        ("https://a.example/%7euser/%41", "https://a.example/~user/A"),
        ("https://a.example/a%2fb%c3", "https://a.example/a%2Fb%C3"),
        ("https://a.example/%2541", "https://a.example/%2541"),
        ("https://a.example/a/./b/../c", "https://a.example/a/c"),
        ("https://a.example/%2e%2E/x", "https://a.example/x"),
        ("https://a.example/a/..", "https://a.example/"),
        ("https://a.example/a/b/.", "https://a.example/a/b/"),
        ("https://a.example/../../x", "https://a.example/x"),
        ("https://a.example/a/b/../../../g", "https://a.example/g"),
        ("https://a.example//a//", "https://a.example//a//"),
        ("https://a.example/a/", "https://a.example/a/"),
        ("https://a.example/...", "https://a.example/..."),
        ("https://a.example/a;b=1,2@c:d", "https://a.example/a;b=1,2@c:d"),
    ],
)
def test_a_uri_is_normalised_to_one_form(uri: str, normal: str) -> None:
    assert normalise_uri(uri) == normal
    assert normalise_uri(normal) == normal


@pytest.mark.parametrize(
    ("path", "normal"),
    [("/a/b/c/./../../g", "/a/g"), ("/./a", "/a"), ("/a/.//b", "/a//b"), ("/..", "/"), ("/.", "/"), ("/a/../", "/")],
)
def test_dot_segments_are_removed_as_in_rfc_3986_section_5_2_4(path: str, normal: str) -> None:
    assert normalise_uri(f"https://a.example{path}") == f"https://a.example{normal}"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "/token",
        "//a.example/token",
        "a.example/token",
        "ftp://a.example/",
        "https:/a.example",
        "https://",
        "https:///x",
        "https://?x",
        "https://user@a.example/",
        "https://user:secret@a.example/",
        "https://a.example:65536/",
        "https://a.example:443443/",
        "https://a.example:x/",
        "https://a.example:4 4/",
        "https://[::1/",
        "https://[v1.x]/",
        "https://[::1]x/",
        "https://a.example/%",
        "https://a.example/%4",
        "https://a.example/%zz",
        "https://a.example/a b",
        "https://a.example/\n",
        " https://a.example/",
        "https://a.example/\\..\\x",
        "https://a.example/é",
        "https://ä.example/",
        "https://a.example/\ud800",
        'https://a.example/"',
        "https://a.example/{x}",
        "https://a.example\t/",
        "https://a.example/\0",
        "https://a.example/?q=\n",
    ],
)
def test_a_uri_that_is_not_an_absolute_http_uri_is_refused(uri: str) -> None:
    with pytest.raises(Malformed):
        normalise_uri(uri)


def test_a_uri_beyond_the_maximum_length_is_refused() -> None:
    start = "https://a.example/"
    assert normalise_uri(start + "x" * (MAX_URI - len(start))).endswith("x")
    with pytest.raises(Malformed, match="longer"):
        normalise_uri(start + "x" * (MAX_URI - len(start) + 1))


@given(st.text(alphabet="hHtps:/?#[]@%2eE.aA~0 é", max_size=30).map(lambda tail: "https://" + tail) | st.text())
def test_normalising_any_text_is_idempotent_or_raises_malformed(uri: str) -> None:
    try:
        normal = normalise_uri(uri)
    except Malformed:
        return
    assert normalise_uri(normal) == normal


@pytest.mark.parametrize(
    ("uri", "whole"),
    [
        ("https://a.example/cb", "https://a.example/cb?code=x%26y"),
        ("https://a.example/cb?", "https://a.example/cb?code=x%26y"),
        ("https://a.example/cb?a=1", "https://a.example/cb?a=1&code=x%26y"),
        ("https://a.example/cb?a=1&", "https://a.example/cb?a=1&code=x%26y"),
        ("https://a.example/cb&", "https://a.example/cb&?code=x%26y"),
        ("https://a.example/cb?a=1#top", "https://a.example/cb?a=1&code=x%26y"),
        ("com.example.app:/cb", "com.example.app:/cb?code=x%26y"),
    ],
)
def test_parameters_are_appended_to_the_query_of_a_uri(uri: str, whole: str) -> None:
    assert add_query(uri, {"code": "x&y"}) == whole
