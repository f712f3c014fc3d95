"""Geographic places of networks, from the operator's file with one line for each: `NETWORK LATITUDE LONGITUDE`.

    10.0.0.0/8          50.11   8.68   # Frankfurt
    2001:db8:7::/48     53.35  -6.26

The smallest network that contains an address counts. Text after `#` is a comment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from ostiary.protocol.errors import Invalid

MAX_PLACES = 100_000
MAX_BYTES = 8 << 20
Place = tuple[float, float]
"""latitude and longitude in degrees"""


@dataclass(frozen=True, slots=True)
class Places:
    """The geographic places (latitude, longitude) of IP networks. `by_length`: by IP version and length of prefix, the
    longest prefix first, then by the network's address as an integer.
    """

    by_length: Mapping[tuple[int, int], Mapping[int, Place]]

    def of(self, network: str) -> Place | None:
        """Return the place of the smallest listed network that contains `network`; None if no listed network
        contains it.
        """
        whole = ip_network(network)
        number = int(whole.network_address)
        for (version, length), places in self.by_length.items():
            if version == whole.version and length <= whole.prefixlen:
                shift = whole.max_prefixlen - length
                if (place := places.get(number >> shift << shift)) is not None:
                    return place
        return None


def parse_places(text: str) -> Places:
    """Return the places in the text of a file, whose lines are `NETWORK LATITUDE LONGITUDE`. Raises Invalid for a text
    that is too long, and for a malformed line, which the error names.
    """
    if len(text) > MAX_BYTES:
        raise Invalid(f"places: more than {MAX_BYTES} characters")
    by_length: dict[tuple[int, int], dict[int, Place]] = {}
    lines = [(number, line.partition("#")[0].split()) for number, line in enumerate(text.splitlines(), 1)]
    rows = [(number, words) for number, words in lines if words]
    if len(rows) > MAX_PLACES:
        raise Invalid(f"places: more than {MAX_PLACES} networks")
    for number, words in rows:
        try:
            network, place = _line(words)
        except ValueError as error:
            hint = "write the line as NETWORK LATITUDE LONGITUDE, such as 192.0.2.0/24 48.2 16.4"
            raise Invalid(f"places, line {number}: {error}", hint=hint) from None
        by_length.setdefault((network.version, network.prefixlen), {})[int(network.network_address)] = place
    return Places({key: by_length[key] for key in sorted(by_length, reverse=True)})


def _line(words: list[str]) -> tuple[IPv4Network | IPv6Network, Place]:
    if len(words) != 3:
        raise ValueError("expected three words")
    latitude, longitude = map(float, words[1:])
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise ValueError("the latitude must be -90 to 90, and the longitude -180 to 180")
    return ip_network(words[0]), (latitude, longitude)
