"""Networks: one key in two places, impossible travel, and the usual networks of an agent."""

from __future__ import annotations

import pytest

from ostiary.provenance.noticing import Event
from ostiaryd.watch.detectors import impossible_travel, key_in_two_places
from tests.watch.detectors.days import Held, event

MINUTE, HOUR, DAY = 60, 3600, 86_400
HOME, AWAY = "10.0.0.0/24", "203.0.113.0/24"
FRANKFURT, DUBLIN, SYDNEY = (50.1, 8.7), (53.3, -6.3), (-33.9, 151.2)


def to_and_fro(at: float, *networks: str, every: float = MINUTE, key: str = "k") -> list[Event]:
    return [event(at + number * every, network=one, key=key) for number, one in enumerate(networks)]


@pytest.mark.parametrize(
    ("networks", "is_found"),
    [
        ((HOME, AWAY, AWAY, AWAY), False),
        ((HOME, AWAY, HOME), False),
        ((HOME, AWAY, HOME, AWAY), True),
        ((HOME, AWAY, "192.0.2.0/24", "198.51.100.0/24", HOME), False),
    ],
    ids=["a move", "there and back", "to and fro", "a journey"],
)
def test_a_key_that_alternates_between_two_networks_is_noticed(networks: tuple[str, ...], is_found: bool) -> None:
    held = Held(key_in_two_places)
    held.see(to_and_fro(0, *[HOME] * 3))
    assert held.would_find(to_and_fro(2 * DAY, *networks)) is is_found


@pytest.mark.parametrize(("every", "is_found"), [(30 * MINUTE, True), (30 * MINUTE + 1, False)])
def test_a_key_that_returns_to_a_network_after_more_than_30_minutes_is_not_noticed(
    every: float, is_found: bool
) -> None:
    """The time counts from the last use of the key in a network until its next use there."""
    acts = to_and_fro(9 * HOUR, HOME, AWAY, HOME, AWAY, HOME, every=every / 2)
    assert Held(key_in_two_places).would_find(acts) is is_found


def test_two_keys_in_two_networks_are_not_one_key_in_two_places() -> None:
    acts = [event(MINUTE * n, network=(HOME, AWAY)[n % 2], key=("k1", "k2")[n % 2]) for n in range(20)]
    assert not Held(key_in_two_places).would_find(acts)
    assert not Held(key_in_two_places).would_find(to_and_fro(0, *[HOME, AWAY] * 5, key=""))


@pytest.mark.parametrize(("age", "is_found"), [(23 * HOUR, True), (24 * HOUR, False)])
def test_networks_that_an_agent_has_used_for_a_day_are_not_noticed(age: float, is_found: bool) -> None:
    held = Held(key_in_two_places)
    held.see(to_and_fro(0, HOME, AWAY, every=1.0))
    assert held.would_find(to_and_fro(age, HOME, AWAY, HOME, AWAY)) is is_found


@pytest.mark.parametrize(("peers", "is_found"), [(2, True), (3, False)])
def test_a_network_that_three_peers_use_is_not_noticed(peers: int, is_found: bool) -> None:
    held = Held(key_in_two_places)
    for peer in range(2, 2 + peers):
        held.see([event(HOUR, peer, network=AWAY, key=f"k{peer}"), event(HOUR + 1, peer, network=AWAY)])
    assert held.would_find(to_and_fro(2 * HOUR, HOME, AWAY, HOME, AWAY)) is is_found


def test_an_agent_that_uses_a_network_often_counts_as_one_user() -> None:
    held = Held(key_in_two_places)
    held.see(event(n, 2, network=f"198.51.{n % 7}.0/24", key="other") for n in range(500))
    assert held.kept.peers["users"].max() == 1


@pytest.mark.parametrize(
    ("place", "minutes", "is_found"),
    [
        (SYDNEY, 20, True),
        (SYDNEY, 240, True),
        (SYDNEY, 241, False),
        (DUBLIN, 60, True),
        (DUBLIN, 80, False),
        ((50.1, 12.8), 1, False),
        ((50.1, 13.0), 1, True),
        (None, 1, False),
    ],
    ids=["far", "within hours", "later", "an hour", "a flight", "near", "not so near", "nowhere"],
)
def test_travel_faster_than_an_aircraft_is_noticed(
    place: tuple[float, float] | None, minutes: float, is_found: bool
) -> None:
    held = Held(impossible_travel)
    held.see(event(n, network=HOME, place=FRANKFURT) for n in range(3))
    assert held.would_find([event(2 + minutes * MINUTE, network=AWAY, place=place)]) is is_found


def test_a_network_of_unknown_place_hides_no_impossible_travel() -> None:
    held = Held(impossible_travel)
    held.see([event(HOUR, network=HOME, place=FRANKFURT), event(HOUR + 60, network="192.0.2.0/24")])
    [(_, found)] = held.see([event(HOUR + 20 * MINUTE, network=AWAY, place=SYDNEY)])
    assert found.says == "16484 km in 20 minutes, to a place where neither the agent nor its peers work"


def test_travel_to_a_place_where_three_peers_work_is_not_noticed() -> None:
    for peers, is_found in ((2, True), (3, False)):
        held = Held(impossible_travel)
        held.see(event(peer, peer, network=f"10.9.{peer}.0/24", place=SYDNEY) for peer in range(2, 2 + peers))
        held.see([event(100, network=HOME, place=FRANKFURT)])
        assert held.would_find([event(200, network=AWAY, place=SYDNEY)]) is is_found
