"""Names, addresses, words and URIs: what is taken, what is refused, and that the refusal says precisely why."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.cli.ids import LISTS
from ostiary.protocol.errors import Invalid
from ostiaryd.registry.model import check_email, check_name, check_text, check_uri, parse_scopes, spiffe_id
from ostiaryd.registry.model.names import ID_PREFIXES
from tests.support.sources import sources


@pytest.mark.parametrize("name", ["a", "0", "a.b-c_d", "x" * 63, "agent_1", "a-g_1", "tokens"])
def test_a_valid_name_is_accepted_unchanged(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        ("x" * 64, "64 characters"),
        ("Bot", "`B` U+0042"),
        ("-bot", "`-` U+002D"),
        (".bot", "`.` U+002E"),
        ("bot one", "` ` U+0020"),
        ("bot/one", "`/` U+002F"),
        ("bоt", "U+043E (cyrillic small letter o)"),
        ("bοt", "U+03BF (greek small letter omicron)"),
        ("ｂot", "U+FF42 (fullwidth latin small letter b)"),
        ("bot\u0301", "U+0301 (combining acute accent)"),
        ("bot\u200d", "U+200D (zero width joiner)"),
        ("bot\u202e", "U+202E (right-to-left override)"),
        ("bot٣", "U+0663 (arabic-indic digit three)"),
        ("bot\n", "U+000A"),
        ("bot\0", "U+0000"),
        ("ag_" + "0" * 32, "begins with the prefix of an id"),
        ("pe_bob", "begins with the prefix of an id"),
        ("rs_", "begins with the prefix of an id"),
    ],
)
def test_an_invalid_or_confusable_name_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_name(name)
    assert why in refused.value.message


def test_each_id_prefix_that_commands_complete_is_reserved_in_names() -> None:
    assert {f"{prefix}_" for prefix, listed in LISTS.items() if listed.is_named} <= set(ID_PREFIXES)


SHARED = {"ca": "of authorities and of connected accounts, which no list has together"}
"""Prefixes of the ids of two kinds of objects, each with the reason why nobody confuses them."""


def test_no_two_packages_share_an_id_prefix_with_documented_exceptions() -> None:
    packages = defaultdict(set)
    for source in sources("src/ostiaryd"):
        for prefix in re.findall(r"new_id\(\"([a-z]+)\"\)", source.text):
            packages[prefix].add(source.module.split(".")[1])
    assert len(packages) > 30
    several = {prefix for prefix, those in packages.items() if len(those) > 1}
    assert several - {"tk"} == set(SHARED), "a task (`tk`) is also made up by the doctor, to measure the feed"


@given(st.text(max_size=70))
def test_every_accepted_name_has_one_spelling(text: str) -> None:
    try:
        name = check_name(text)
    except Invalid:
        return
    assert name == text.strip().lower()
    assert name.isascii()
    assert 1 <= len(name) <= 63


@pytest.mark.parametrize(
    "address", ["a@b", "first.last+tag@mail.example.org", "o'brien@example.org", "x" * 64 + "@example.org"]
)
def test_a_plausible_mail_address_is_accepted(address: str) -> None:
    assert check_email(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a",
        "@b",
        "a@",
        "a@b@c",
        "a b@c",
        "a@b c",
        ".a@b",
        "a.@b",
        "a..b@c",
        "a@-",
        "a@b.",
        "a@b\r\nBcc: c@d",
        '"a"@b',
        "x" * 65 + "@example.org",
        "a@" + "b" * 253,
        "ä@b",
        "a@bücher.example",
    ],
)
def test_an_invalid_mail_address_is_refused(address: str) -> None:
    with pytest.raises(Invalid):
        check_email(address)


@pytest.mark.parametrize("text", ["x", "x" * 1000, "Erklärt Rechnungen,\n\tprüft sie.", "名前"])
def test_printable_text_of_at_most_a_thousand_characters_is_accepted(text: str) -> None:
    assert check_text(text, of="purpose") == text


@pytest.mark.parametrize(
    "text", ["", " ", "\n", "x" * 1001, "a\0", "a\u202eb", "a\u200bb", "a\x1b[31m", "a\r\nb", "\ud800"]
)
def test_blank_too_long_or_invisible_text_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        check_text(text, of="purpose")


@pytest.mark.parametrize(
    "uri",
    [
        "https://example.org",
        "https://example.org/",
        "https://example.org/mcp",
        "https://example.org/a%2Fb?x=1",
        "https://example.org:8443/mcp",
        "https://127.0.0.1/",
        "https://xn--bcher-kva.example/",
        "http://127.0.0.1:9000/mcp",
        "http://localhost/",
        "http://[::1]:9000/",
        "https://[2001:db8::1]/",
    ],
)
def test_a_uri_in_canonical_form_is_accepted(uri: str) -> None:
    assert check_uri(uri) == uri


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("https://example.org/#", "fragment"),
        ("https://example.org/#a", "fragment"),
        ("https://user@example.org/", "user information"),
        ("https://user:pass@example.org/", "user information"),
        ("https://example.org@evil.example/", "user information"),
        ("http://example.org/", "must begin with https"),
        ("http://127.0.0.1.evil.example/", "must begin with https"),
        ("http://localhost.evil.example/", "must begin with https"),
        ("ftp://example.org/", "not accepted"),
        ("example.org", "not accepted"),
        ("", "not accepted"),
        ("https://", "not accepted"),
        ("https:///path", "not accepted"),
        ("https://example.org:99999/", "not accepted"),
        ("https://example.org/ä", "not accepted"),
        ("https://bücher.example/", "not accepted"),
        ("https://example.org/a b", "not accepted"),
        ("https://example.org\\@evil.example/", "the URI contains user information"),
        ("https://example.org/" + "x" * 2048, "not accepted"),
        ("HTTPS://example.org/", "canonical form"),
        ("https://EXAMPLE.org/", "canonical form"),
        ("https://example.org:443/", "canonical form"),
        ("http://localhost:80/", "canonical form"),
        ("https://example.org/a/../b", "canonical form"),
        ("https://example.org/./", "canonical form"),
        ("https://example.org/%7Ea", "canonical form"),
        ("https://example.org/%2f", "canonical form"),
        ("https://example.org:08443/", "canonical form"),
        ("https://example.org:/", "canonical form"),
    ],
)
def test_an_ambiguous_or_unsafe_uri_is_refused_with_the_reason(uri: str, why: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_uri(uri)
    assert why in refused.value.message


def test_the_hint_for_a_refused_uri_is_its_accepted_canonical_form() -> None:
    with pytest.raises(Invalid) as refused:
        check_uri("HTTPS://Example.org:443/a/../b?q=1")
    wanted = refused.value.hint.removeprefix("write `").removesuffix("`")
    assert check_uri(wanted) == "https://example.org/b?q=1"


def test_a_scope_names_a_resource_and_a_class() -> None:
    assert parse_scopes(["files:read", "files:read", "a.b:c-d"]) == {"files:read", "a.b:c-d"}
    assert len(parse_scopes([f"r{n}:read" for n in range(100)])) == 100


@pytest.mark.parametrize(
    "scopes",
    [
        ["files"],
        ["files:"],
        [":read"],
        ["files:read write"],
        ["Files:read"],
        ["a:b:c"],
        ["files:read\n"],
        ["x" * 64 + ":read"],
        [f"r{n}:read" for n in range(101)],
    ],
)
def test_malformed_scopes_and_too_many_scopes_are_refused(scopes: list[str]) -> None:
    with pytest.raises(Invalid):
        parse_scopes(scopes)


def test_the_spiffe_id_is_made_of_trust_domain_and_name() -> None:
    assert spiffe_id("example.org", "bot") == "spiffe://example.org/agent/bot"
