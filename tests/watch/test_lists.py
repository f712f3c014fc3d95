"""Reading threat lists: bundles of STIX 2.1 and plain lists, hostile ones too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ostiary.protocol.errors import Invalid, Malformed
from ostiary.provenance.noticing.threats import Kind, ThreatList, find_list, indicator
from ostiaryd.watch.engines import lists
from ostiaryd.watch.engines.lists import MAX_LIST_BYTES, MAX_PATTERN, Listed, parse_list

NOW = 1_700_000_000_000_000  # 2023-11-14T22:13:20Z
SPARED = frozenset({"id.example.org"})


def stix(*indicators: dict[str, Any]) -> bytes:
    whole = {"type": "indicator", "spec_version": "2.1", "pattern_type": "stix", "valid_from": "2016-01-01T00:00:00Z"}
    objects = [whole | one for one in indicators]
    return json.dumps({"type": "bundle", "id": "bundle--1", "objects": objects}).encode()


def plain(*lines: str) -> Listed:
    return parse_list("plain", "\n".join(lines).encode(), now=NOW, spared=SPARED)


def patterns(*given: str) -> Listed:
    return parse_list("stix", stix(*({"pattern": one} for one in given)), now=NOW, spared=SPARED)


def marks(*named: tuple[Kind, str]) -> frozenset[bytes]:
    return frozenset(indicator(kind, value)[0] for kind, value in named)


# ---------------------------------------------------------------------------------------- STIX


def test_stix_examples_that_are_lists_of_alternatives_are_read() -> None:
    """STIX 2.1, section 9.8 and the examples of section 4.7 and 6.7: lists of alternatives are read."""
    read = patterns(
        "[file:hashes.'SHA-256' = 'aec070645fe53ee3b3763059376134f058cc337247c978add178b6ccdfb0019f']",
        "[ipv4-addr:value = '198.51.100.1/32' OR ipv4-addr:value = '203.0.113.33/32' OR ipv6-addr:value ="
        " '2001:0db8:dead:beef:dead:beef:dead:0001/128']",
        "[url:value = 'http://example.com/foo'] OR [url:value = 'http://example.com/bar']",
        "[domain-name:value = 'www.5z8.info']",
    )
    assert read.marks == marks(
        ("digest", "aec070645fe53ee3b3763059376134f058cc337247c978add178b6ccdfb0019f"),
        ("address", "198.51.100.1"),
        ("address", "203.0.113.33"),
        ("address", "2001:db8:dead:beef:dead:beef:dead:1"),
        ("link", "http://example.com/foo"),
        ("link", "http://example.com/bar"),
        ("domain", "www.5z8.info"),
    )
    assert read.skipped == 0


@pytest.mark.parametrize(
    "pattern",
    [
        "[file:hashes.'SHA-256' = 'aec070645fe53ee3b3763059376134f058cc337247c978add178b6ccdfb0019f' AND"
        " file:mime_type = 'application/x-pdf']",
        "[domain-name:value = 'www.5z8.info' AND domain-name:resolves_to_refs[*].value = '198.51.100.1/32']",
        "[file:hashes.MD5 = '79054025255fb1a26e4bc422aef54eb4'] FOLLOWEDBY [win-registry-key:key = 'HKEY']",
        "[url:value = 'http://example.com/foo'] WITHIN 30 SECONDS",
        "[url:value LIKE 'http://example.com/%']",
        "[url:value MATCHES '^http']",
        "[NOT url:value = 'http://example.com/']",
        "[url:value != 'http://example.com/']",
        "[domain-name:value ISSUBSET '45.83.64.0/22']",
        "[process:name = 'evil.example']",
        "url:value = 'http://a.org/'",
        "[url:value = 'http://example.com/foo'",
        "[url:value = 'http://example.com/foo'] [url:value = 'http://a.org/']",
        "[]",
        "",
        "[(url:value = 'http://a.org/')]",
        "[url:value = 'http://a.org/'] AND [url:value = 'http://b.org/']",
        "[url:value = 'http://a.org/' OR process:name = 'x']",
        "[url:value = 'http://a.org/" + "x" * MAX_PATTERN + "']",
    ],
)
def test_a_stix_pattern_that_is_not_a_list_of_alternatives_is_skipped_whole(pattern: str) -> None:
    read = patterns("[domain-name:value = 'evil.example']", pattern)
    assert read.marks == marks(("domain", "evil.example"))
    assert read.skipped == 1


def test_sets_networks_and_escapes_in_stix_patterns_are_read() -> None:
    read = patterns(
        "[domain-name:value IN ('a.example','b.example') OR ipv4-addr:value ISSUBSET '45.83.64.0/22']",
        r"[domain-name:value = 'c\.exampl\e']",
    )
    assert read.marks == marks(
        ("domain", "a.example"), ("domain", "b.example"), ("domain", "c.example"), ("address", "45.83.64.0/22")
    )
    assert read.networks == {(4, 22)}


def test_only_indicators_that_are_valid_now_count_and_the_first_expiry_is_known() -> None:
    def one(host: str, **more: Any) -> dict[str, Any]:
        return {"pattern": f"[domain-name:value = '{host}']", **more}

    at = "2023-11-14T22:13:20Z"
    read = parse_list(
        "stix",
        stix(
            one("always.example"),
            one("from-now.example", valid_from=at),
            one("later.example", valid_from="2023-11-14T22:13:20.000001Z"),
            one("over.example", valid_until=at),
            one("soon-over.example", valid_until="2023-11-14T22:13:20.000001Z"),
            one("gone.example", revoked=True),
            one("sigma.example", pattern_type="sigma"),
            one("in-a-year.example", valid_until="2024-11-14T00:00:00Z"),
            {**one("malware.example"), "type": "malware"},
        ),
        now=NOW,
        spared=SPARED,
    )
    assert read.marks == marks(
        ("domain", "always.example"),
        ("domain", "from-now.example"),
        ("domain", "soon-over.example"),
        ("domain", "in-a-year.example"),
    )
    assert read.until == NOW + 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"type":"report","objects":[]}',
        b'{"type":"bundle","objects":{}}',
        b'{"type":"bundle","objects":[{"type":"indicator","pattern":7}]}',
        b'{"type":"bundle"',
        b"<html>busy</html>",
        b'{"type":"bundle","objects":[{"type":"indicator","valid_from":"soon"}]}',
        b'{"x":' * 100_000,
        b"\xff\xfe",
        b'{"type":"bundle","objects":[{"type":"indicator","pattern_type":"stix","pattern":"","valid_until":"2023-01-01T00:00:00"}]}',
    ],
)
def test_a_malformed_stix_bundle_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_list("stix", body, now=NOW, spared=SPARED)


# ---------------------------------------------------------------------------------------- Plain


def test_usual_line_formats_of_plain_lists_are_read() -> None:
    read = plain(
        "# a comment",
        "",
        "; another",
        "// a third",
        "evil.example",
        "0.0.0.0 ads.example",
        "127.0.0.1\ttrack.example # x",
        "*.wild.example",
        "https://bad.example/x",
        "203.0.113.7 ; seen",
        "45.83.64.0/22",
        "2a0e:b107::/32",
        "eve@post.example",
        "a" * 64,
        "  spaces.example  \r",
    )
    assert read.marks == marks(
        ("domain", "evil.example"),
        ("domain", "ads.example"),
        ("domain", "track.example"),
        ("domain", "wild.example"),
        ("link", "https://bad.example/x"),
        ("address", "203.0.113.7"),
        ("address", "45.83.64.0/22"),
        ("address", "2a0e:b107::/32"),
        ("mail", "eve@post.example"),
        ("digest", "a" * 64),
        ("domain", "spaces.example"),
    )
    assert (read.skipped, sorted(read.networks)) == (0, [(4, 22), (6, 32)])


def test_a_hostile_list_cannot_name_spared_hosts_or_very_large_networks() -> None:
    read = plain(
        "evil.example",
        "id.example.org",
        "ID.example.org.",
        "localhost",
        "127.0.0.1 localhost",
        "0.0.0.0/0",
        "com",
        "::/0",
        "example.org",
        "three words here",
        "0.0.0.0",
        "not a name!",
        "x" * 300,
    )
    assert read.marks == marks(("domain", "evil.example"))
    assert read.skipped == 12


@pytest.mark.parametrize("body", [b"", b"# nothing\n", b"<html>\n<title>busy</title>\n</html>", b"com\norg\n"])
def test_a_list_without_a_value_that_can_be_checked_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid, match="no value that can be checked"):
        parse_list("plain", body, now=NOW, spared=SPARED)


def test_a_list_that_exceeds_its_limits_or_is_not_utf8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MAX_MARKS", 3)
    assert len(plain("a.example", "b.example", "c.example", "a.example").marks) == 3
    with pytest.raises(Invalid, match="more than 3"):
        plain("a.example", "b.example", "c.example", "d.example")
    with pytest.raises(Malformed, match="longer"):
        parse_list("plain", b"a.example\n" + b"#" * MAX_LIST_BYTES, now=NOW, spared=SPARED)
    with pytest.raises(Malformed, match="UTF-8"):
        parse_list("plain", b"a.example\n\xff", now=NOW, spared=SPARED)


def test_a_host_read_from_a_list_is_found_in_a_url() -> None:
    read = plain("evil.example")
    assert find_list("https://evil.example/", {"a": ThreatList("a", 1, read.marks)}) is not None
