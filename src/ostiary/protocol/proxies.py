"""Clients behind reverse proxies: only proxies that the configuration names are trusted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network


@lru_cache(maxsize=8)
def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks in a text, separated by spaces. Raises ValueError for other text."""
    return tuple(ip_network(word) for word in text.split())


def client_address(address: str, forwarded: Sequence[str], proxies: Sequence[Network]) -> str:
    """Return the address of the client. Candidates are `address`, the peer of the connection, and then the values in
    `forwarded`, the last one first. The first candidate that is not in `proxies` is the client; if all are, the client
    is the last candidate.

    `forwarded`: the values of `X-Forwarded-For`. Each proxy appends the address of its own peer, so the last value
    comes from the proxy that is connected to this server. Values before the returned address are not trusted.
    """
    if proxies:
        chain = [part.strip() for value in forwarded for part in value.split(",")]
        while chain and is_within(address, proxies):
            address = chain.pop()
    return address


@lru_cache(maxsize=4096)
def is_within_networks(address: str, networks: str) -> bool:
    """Return whether `address` is in one of the networks in a text, separated by spaces. Raises ValueError for other
    text.
    """
    return is_within(address, parse_networks(networks))


def is_within(address: str, networks: Sequence[Network]) -> bool:
    """Return whether `address` is in one of the networks; False for text that is no address. An IPv4-mapped IPv6
    address, as a socket for both versions shows it, counts as the IPv4 address (RFC 4291 section 2.5.5.2).
    """
    parsed = _parse_address(address)
    return parsed is not None and any(parsed in network for network in networks)


@lru_cache(4096)
def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(text)
    except ValueError:
        return None
    return (isinstance(parsed, IPv6Address) and parsed.ipv4_mapped) or parsed
