"""Threat lists: an indicator is found in any notation, other values raise no finding, and the search is bounded."""

from __future__ import annotations

import base64

import pytest

from ostiary.protocol.errors import Invalid
from ostiary.provenance.noticing.threats import (
    DETECTOR,
    MARK_BYTES,
    MAX_LABELS,
    MAX_LOOKS,
    Kind,
    ThreatList,
    find,
    find_list,
    find_network_list,
    indicator,
    parse_marks,
)

SHA256 = "aec070645fe53ee3b3763059376134f058cc337247c978add178b6ccdfb0019f"


def listed(*named: tuple[Kind, str], name: str = "evil", points: int = 60) -> dict[str, ThreatList]:
    made = [indicator(kind, value) for kind, value in named]
    networks = frozenset(network for _, network in made if network is not None)
    return {f"tl_{name}": ThreatList(name, points, frozenset(mark for mark, _ in made), networks)}


LIST = listed(
    ("domain", "Evil.Example"),
    ("domain", "bücher.example"),
    ("link", "HTTP://Bad.example:80/a%2Db?x=1#top"),
    ("link", "https://shop.example/free"),
    ("address", "203.0.113.7"),
    ("address", "45.83.64.0/22"),
    ("address", "2a0e:b107::/32"),
    ("mail", "Eve@post.example"),
    ("digest", SHA256.upper()),
)

NAMED = [
    "evil.example",
    "see EVIL.EXAMPLE.",
    "https://a.b.evil.example/x",
    "https://good.example@evil.example/",
    "ftp://evil.example",
    "host=evil.example;port=1",
    "evil.example:8443",
    "x@evil.example",
    "evil%2Eexample",
    "evil&#46;example",
    "evil[.]example",
    "hxxps://evil[.]example/",
    "evil。example",
    "ｅｖｉｌ.example",
    "evil.ex\u00adample",
    "xn--bcher-kva.example",
    "BÜCHER.example",
    "//evil.example/x",
    base64.b64encode(b"go to evil.example now").decode(),
    b"go to evil.example now".hex(),
    "https://bad.example/a-b?x=1",
    "http://u:p@bad.example/a%2db?x=1",
    "shop: https://shop.example/free?from=mail#x",
    "203.0.113.7",
    "http://203.0.113.7:8080/",
    "http://0xcb007107/",
    "http://3405803783/",
    "http://0313.0.0161.07/",
    "http://203.0.28935/",
    "::ffff:203.0.113.7",
    "http://[::ffff:cb00:7107]/x",
    "45.83.64.0",
    "45.83.67.255",
    "2a0e:b107::1",
    "http://[2A0E:B107:0:0::5]:80/",
    "eve@post.example",
    "mailto:EVE@POST.example?subject=x",
    f"sha256:{SHA256}",
    SHA256.upper(),
]

OTHERS = [
    "",
    "hello",
    "evil",
    "example",
    "notevil.example",
    "evil.example.org",
    "evil-example",
    "evil.examples",
    "bad.example",
    "https://bad.example/a-b?x=2",
    "https://bad.example/a-b",
    "https://shop.example/freedom",
    "203.0.113.70",
    "1203.0.113.7",
    "203.0.113.7.8",
    "45.83.63.255",
    "45.83.68.0",
    "2a0e:b108::1",
    "12:30:45",
    "adam@post.example",
    "steve@post.example",
    SHA256[:-1],
    SHA256 + "0",
    "/srv/reports/q3.txt",
    "3.14",
    "http://3405803784/",
]


@pytest.mark.parametrize("text", NAMED)
def test_an_indicator_of_a_threat_list_is_found_in_any_notation(text: str) -> None:
    (noticed,) = find({"where": text}, LIST)
    assert (noticed.detector, noticed.points) == (DETECTOR, 60)
    assert noticed.says.startswith("the argument 'where' names a")
    assert find_list(text, LIST) is LIST["tl_evil"]


@pytest.mark.parametrize("text", OTHERS)
def test_a_value_that_is_not_on_a_threat_list_raises_no_finding(text: str) -> None:
    assert find({"where": text}, LIST) == []
    assert find_list(text, LIST) is None


def test_an_indicator_is_found_in_nested_arguments_and_its_value_is_not_reported() -> None:
    for arguments in (
        {"a": {"b": [{"c": "evil.example"}]}},
        {"a": ("x", ["evil.example"])},
        {"a": {"evil.example": 1}},
        {"n": 1, "f": 1.5, "t": True, "z": None, "a": "evil.example"},
    ):
        (noticed,) = find(arguments, LIST)
        assert "'a'" in noticed.says
        assert "evil.example" not in noticed.says


def test_each_threat_list_is_reported_once_and_the_worst_of_several_counts() -> None:
    lists = LIST | listed(("domain", "evil.example"), ("domain", "other.example"), name="more", points=90)
    told = find({"a": "evil.example other.example", "b": "evil.example"}, lists)
    assert sorted((one.points, "`more`" in one.says) for one in told) == [(60, False), (90, True)]
    worst = find_list("evil.example", lists)
    assert worst is not None
    assert worst.name == "more"
    assert find({"a": "evil.example"}, {}) == []


def test_an_argument_with_more_names_than_the_search_limit_raises_a_finding() -> None:
    few = {"a": "a.b " * (MAX_LOOKS - 1) + "evil.example"}
    assert [one.says for one in find(few, LIST)] == ["the argument 'a' names a host of the threat list `evil`"]
    many = {"a": "a.b " * MAX_LOOKS + "evil.example"}
    (noticed,) = find(many, LIST)
    assert noticed.points == 30
    assert f"more than {MAX_LOOKS}" in noticed.says
    assert find({"a": "a.b " * MAX_LOOKS}, LIST) == []


def test_names_of_arguments_are_bounded_and_escaped_in_a_finding() -> None:
    (noticed,) = find({"x" * 500 + "\n": "evil.example", "\u202e`": "evil.example"}, LIST)
    assert len(noticed.says) <= 300
    assert noticed.says.isprintable()


# ---------------------------------------------------------------------------------------- Networks


def test_a_network_is_found_only_if_a_threat_list_contains_all_of_the_network() -> None:
    assert find_network_list("45.83.65.0/24", LIST) is LIST["tl_evil"]
    assert find_network_list("45.83.64.0/22", LIST) is LIST["tl_evil"]
    for network in ("45.83.64.0/21", "45.83.68.0/24", "203.0.113.0/24", "2a0e:b106::/31", ""):
        assert find_network_list(network, LIST) is None
    assert find_network_list("2a0e:b107:5::/48", LIST) is LIST["tl_evil"]
    assert find_network_list("45.83.65.0/24", {}) is None


# ---------------------------------------------------------------------------------------- What a list may name


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("domain", "com"),
        ("domain", ""),
        ("domain", "a..b"),
        ("domain", "-a.b"),
        ("domain", "a b.c"),
        ("domain", "1.2.3.4"),
        ("domain", ".".join("a" * (MAX_LABELS + 1))),
        ("domain", "a.b/c"),
        ("domain", "x" * 64 + ".org"),
        ("link", "evil.example/x"),
        ("link", "ftp://evil.example/"),
        ("link", "https://"),
        ("link", "https://a b"),
        ("mail", "eve"),
        ("mail", "@x.org"),
        ("digest", "ab" * 15),
        ("digest", "g" * 32),
        ("digest", "a" * 72),
        ("address", "localhost"),
        ("address", "127.0.0.1"),
        ("address", "0.0.0.0"),
        ("address", "169.254.169.254"),
        ("address", "224.0.0.1"),
        ("address", "::1"),
        ("address", "10.0.0.0/8"),
        ("address", "1.0.0.0/7"),
        ("address", "0.0.0.0/0"),
        ("address", "2000::/18"),
        ("address", "::/0"),
    ],
)
def test_a_malformed_indicator_is_refused(kind: Kind, value: str) -> None:
    with pytest.raises(Invalid):
        indicator(kind, value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("address", "1.0.0.0/8"),
        ("address", "2000::/19"),
        ("address", "10.1.2.3"),
        ("address", "[2a0e::1]"),
        ("domain", ".".join("a" * MAX_LABELS)),
        ("domain", "x" * 63 + ".org"),
        ("digest", "a" * 40),
        ("digest", "a" * 128),
    ],
)
def test_a_well_formed_indicator_is_accepted(kind: Kind, value: str) -> None:
    mark, _ = indicator(kind, value)
    assert len(mark) == MARK_BYTES


def test_marks_of_a_threat_list_must_have_their_whole_length() -> None:
    marks = frozenset(indicator("domain", f"a{number}.example")[0] for number in range(3))
    assert parse_marks(b"".join(marks)) == marks
    assert parse_marks(b"") == frozenset()
    with pytest.raises(Invalid):
        parse_marks(b"x" * (MARK_BYTES + 1))
