"""Only the network of an address is kept; only configured proxies can state the address of a client."""

from __future__ import annotations

import pytest

from ostiary.protocol.network import network_of
from ostiary.protocol.proxies import client_address, is_within_networks, parse_networks


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("203.0.114.0", "203.0.114.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
        ("2001:DB8:1:ffff::", "2001:db8:1::/48"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("fe80::1%eth0", "fe80::/48"),
        ("127.0.0.1", "127.0.0.0/24"),
        ("", ""),
        ("testclient", ""),
        ("203.0.113.77:443", ""),
        ("0x7f.1", ""),
    ],
)
def test_an_address_is_kept_as_its_network(address: str, network: str) -> None:
    assert network_of(address) == network


OURS = parse_networks("10.0.0.0/8 2001:db8::/32")


@pytest.mark.parametrize(
    ("peer", "said", "who"),
    [
        ("198.51.100.1", [], "198.51.100.1"),
        ("198.51.100.1", ["203.0.113.7"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.7 ,10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["6.6.6.6", "203.0.113.7", "2001:db8::9"], "203.0.113.7"),
        ("10.0.0.1", ["10.0.0.3"], "10.0.0.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "unknown"),
        ("11.0.0.1", ["203.0.113.7"], "11.0.0.1"),
    ],
)
def test_the_header_x_forwarded_for_counts_only_from_configured_proxies(peer: str, said: list[str], who: str) -> None:
    assert client_address(peer, said, OURS) == who


def test_the_header_x_forwarded_for_is_ignored_without_proxies() -> None:
    assert client_address("10.0.0.1", ["203.0.113.7"], ()) == "10.0.0.1"


@pytest.mark.parametrize(
    ("address", "networks", "is_within"),
    [
        ("10.0.0.1", "10.0.0.1/32", True),
        ("10.0.0.2", "10.0.0.1/32", False),
        ("10.0.0.2", "192.0.2.0/24 10.0.0.0/30", True),
        ("10.0.0.4", "192.0.2.0/24 10.0.0.0/30", False),
        ("::ffff:10.0.0.1", "10.0.0.1/32", True),
        ("2001:db8::1", "10.0.0.0/8", False),
        ("unknown", "0.0.0.0/0 ::/0", False),
        ("10.0.0.1", "", False),
    ],
)
def test_an_address_is_compared_with_a_list_of_networks(address: str, networks: str, is_within: bool) -> None:
    for _ in range(2):  # the second answer is remembered
        assert is_within_networks(address, networks) is is_within
