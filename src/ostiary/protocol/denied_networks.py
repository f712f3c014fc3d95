"""Deny list of the fetcher: the networks to which a URL named by another party must not lead.

The list is our own, by CIDR, so that it does not change with the version of Python. Sources: the registries of IANA for
special-purpose addresses (RFC 6890), and the metadata services of cloud vendors. An IPv6 address is public only inside
2000::/3, the global unicast space that IANA has allocated (RFC 4291 section 2.4).

`PRIVATE` networks may be opened for a host that the operator names in `private_hosts`. All others are never opened:
a name that its owner points at a metadata service or at a multicast group stays denied.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ip_network(line.partition("#")[0].strip()) for line in text.strip().splitlines())


PRIVATE = _networks("""
    10.0.0.0/8           # private (RFC 1918)
    172.16.0.0/12        # private
    192.168.0.0/16       # private
    127.0.0.0/8          # loopback
    100.64.0.0/10        # shared address space of carriers (RFC 6598)
    ::1/128              # loopback
    fc00::/7             # unique local (RFC 4193)
""")

METADATA = _networks("""
    168.63.129.16/32     # Azure platform services
    100.100.100.200/32   # Alibaba
    192.0.0.192/32       # Oracle
    192.80.8.124/32      # Equinix Metal
    161.26.0.0/16        # IBM services
    166.8.0.0/14         # IBM service endpoints
    fd00:ec2::/32        # AWS
    fd20:ce::254/128     # Google
    fd00:42::42/128      # Scaleway
    fd00:c1::/32         # Oracle
""")
"""Metadata services of cloud vendors outside 169.254.0.0/16 and fe80::/10, which are denied as a whole."""

SPECIAL = _networks("""
    0.0.0.0/8            # this network
    169.254.0.0/16       # link-local, and most metadata services
    192.0.0.0/24         # IETF protocol assignments
    192.0.2.0/24         # documentation
    192.31.196.0/24      # AS112
    192.52.193.0/24      # AMT
    192.88.99.0/24       # relays of 6to4
    192.175.48.0/24      # AS112
    198.18.0.0/15        # benchmarking
    198.51.100.0/24      # documentation
    203.0.113.0/24       # documentation
    224.0.0.0/4          # multicast
    240.0.0.0/4          # reserved, and broadcast
    2001::/23            # IETF protocol assignments: Teredo, benchmarking, ORCHID
    2001:db8::/32        # documentation
    2002::/16            # 6to4
    2620:4f:8000::/48    # AS112
    3ffe::/16            # 6bone
    3fff::/20            # documentation
""")

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Return whether `address` is public: no denied network contains it and, for IPv6, 2000::/3 does. An IPv4-mapped
    address and an address with the NAT64 prefix 64:ff9b::/96 count as the IPv4 address that they contain.
    """
    address = _unwrap(address)
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return not _is_in(address, PRIVATE + METADATA + SPECIAL)


def is_private(address: Address) -> bool:
    """Return whether `address` belongs to a private network that the operator may open for a host by its name
    (`private_hosts`). False for the metadata services of cloud vendors in such networks.
    """
    address = _unwrap(address)
    return _is_in(address, PRIVATE) and not _is_in(address, METADATA)


def _unwrap(address: Address) -> Address:
    """Return the IPv4 address to which a host or a NAT64 gateway translates `address` (RFC 4291 2.5.5.2, RFC 6052)."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_in(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks if network.version == address.version)
