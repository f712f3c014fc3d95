"""Places of networks: the operator's file, its limits, and the smallest network that contains an address."""

from __future__ import annotations

import pytest

from ostiary.protocol.errors import Invalid
from ostiary.provenance.noticing import places as module
from ostiary.provenance.noticing.places import parse_places

FILE = """
# offices
10.0.0.0/8      50.11   8.68    # Frankfurt
10.1.0.0/16     53.35  -6.26
10.1.7.0/24     1.35  103.82
2001:db8::/32   39.0  -77.5
"""


@pytest.mark.parametrize(
    ("network", "place"),
    [
        ("10.2.3.0/24", (50.11, 8.68)),
        ("10.1.6.0/24", (53.35, -6.26)),
        ("10.1.7.0/24", (1.35, 103.82)),
        ("10.0.0.0/7", None),
        ("11.0.0.0/24", None),
        ("2001:db8:7::/48", (39.0, -77.5)),
        ("2001:db9::/48", None),
    ],
)
def test_the_place_of_a_network_is_that_of_the_smallest_enclosing_network(
    network: str, place: tuple[float, float] | None
) -> None:
    assert parse_places(FILE).of(network) == place


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("10.0.0.0/8 50", "three words"),
        ("10.0.0.0/8 50 8 9", "three words"),
        ("10.0.0.1/8 50 8", "host bits"),
        ("nowhere 50 8", "nowhere"),
        ("10.0.0.0/8 north 8", "north"),
        ("10.0.0.0/8 nan 8", "the latitude must"),
        ("10.0.0.0/8 90.1 8", "the latitude must"),
        ("10.0.0.0/8 -90.1 8", "the latitude must"),
        ("10.0.0.0/8 50 180.1", "the latitude must"),
    ],
)
def test_a_malformed_line_of_places_is_named_in_the_error(line: str, why: str) -> None:
    with pytest.raises(Invalid, match=f"line 2: .*{why}"):
        parse_places(f"# first\n{line}\n")


def test_the_limits_of_latitude_and_longitude_are_accepted() -> None:
    assert parse_places("10.0.0.0/8 90 180").of("10.0.0.0/24") == (90.0, 180.0)
    assert parse_places("10.0.0.0/8 -90 -180").of("10.0.0.0/24") == (-90.0, -180.0)


def test_a_file_of_places_beyond_its_limits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PLACES", 3)
    lines = [f"10.0.{number}.0/24 1 1" for number in range(4)]
    assert parse_places("\n".join(lines[:3])).of("10.0.2.0/24") == (1.0, 1.0)
    with pytest.raises(Invalid, match="more than 3 networks"):
        parse_places("\n".join(lines))
    monkeypatch.setattr(module, "MAX_BYTES", 20)
    assert parse_places("#" * 20).of("10.0.2.0/24") is None
    with pytest.raises(Invalid, match="more than 20 characters"):
        parse_places("#" * 21)
