"""Where networks are, as a file of the operator says: a line for each, `NETWORK LATITUDE LONGITUDE`.

    10.0.0.0/8          50.11   8.68   # Frankfurt
    2001:db8:7::/48     53.35  -6.26

Of several networks that hold an address the smallest counts. What follows `#` is a remark.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from ostiary.protocol.errors import Invalid

MAX_PLACES = 100_000
MAX_BYTES = 8 << 20
Place = tuple[float, float]
"""degrees of latitude and longitude"""


@dataclass(frozen=True, slots=True)
class Places:
    """By version and length of prefix, the longest first; then by the network's number."""

    by_length: Mapping[tuple[int, int], Mapping[int, Place]]

    def of(self, network: str) -> Place | None:
        """Where that network is; None where nobody says."""
        whole = ip_network(network)
        number = int(whole.network_address)
        for (version, length), places in self.by_length.items():
            if version == whole.version and length <= whole.prefixlen:
                shift = whole.max_prefixlen - length
                if (found := places.get(number >> shift << shift)) is not None:
                    return found
        return None


def parse_places(text: str) -> Places:
    """Raises Invalid, by the line."""
    if len(text) > MAX_BYTES:
        raise Invalid(f"places: more than {MAX_BYTES} characters")
    found: dict[tuple[int, int], dict[int, Place]] = {}
    lines = [(number, line.partition("#")[0].split()) for number, line in enumerate(text.splitlines(), 1)]
    said = [(number, words) for number, words in lines if words]
    if len(said) > MAX_PLACES:
        raise Invalid(f"places: more than {MAX_PLACES} networks")
    for number, words in said:
        try:
            network, place = _line(words)
        except ValueError as error:
            raise Invalid(f"places, line {number}: {error}", hint="NETWORK LATITUDE LONGITUDE") from None
        found.setdefault((network.version, network.prefixlen), {})[int(network.network_address)] = place
    return Places({key: found[key] for key in sorted(found, reverse=True)})


def _line(words: list[str]) -> tuple[IPv4Network | IPv6Network, Place]:
    if len(words) != 3:
        raise ValueError("three words are needed")
    latitude, longitude = map(float, words[1:])
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise ValueError("no such place")
    return ip_network(words[0]), (latitude, longitude)
