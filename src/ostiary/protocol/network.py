"""The network of an IP address, which is stored instead of the address to distinguish places."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

BITS = {4: 24, 6: 48}
"""length of a network prefix in bits, by IP version"""


@lru_cache(4096)
def network_of(address: str) -> str:
    """Return the network of an address, such as `203.0.113.0/24` or `2001:db8:1::/48`; empty for a peer without an
    address, such as a Unix socket.

    An IPv4-mapped IPv6 address (RFC 4291 2.5.5.2) counts as the IPv4 address.
    """
    try:
        parsed: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return str(ip_network((parsed, BITS[parsed.version]), strict=False))
