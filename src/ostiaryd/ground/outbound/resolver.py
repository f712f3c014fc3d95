"""DNS lookups: addresses, TXT and CAA records of a name, with name servers that the configuration can set.

Without configured name servers, addresses come from the resolver of the system, which also knows its `hosts` file.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import Any

from ostiary.protocol.denied_networks import Address
from ostiary.protocol.errors import Invalid, Unavailable

MAX_RECORDS = 64
"""Maximum number of records in an answer that are read."""


class DnsFailed(Unavailable):
    """The lookup failed, or the name has no address."""

    code = "dns_failed"


class NoSuchName(DnsFailed):
    """A name server answered that the name does not exist (NXDOMAIN). The system's resolver raises only DnsFailed."""


class Resolver:
    """A resolver with name servers in the form `ADDRESS[:PORT]`, separated by spaces; empty for the name servers of the
    system.
    """

    def __init__(self, servers: str, *, within_s: float = 5.0) -> None:
        """Parse the name servers. Raises Invalid for a malformed address."""
        self._servers = parse_name_servers(servers)
        self._within_s = within_s

    async def addresses(self, host: str) -> list[Address]:
        """Return the addresses of a host: with configured name servers, those of IPv6, then those of IPv4; otherwise in
        the order of the system. Raises DnsFailed, also if there is no address.
        """
        if not self._servers:
            return await self._system_addresses(host)
        addresses: list[Address] = []
        failure: DnsFailed | None = None
        for kind in ("AAAA", "A"):
            try:
                addresses += [ip_address(record.to_text()) for record in await self._records(host, kind)]
            except DnsFailed as error:
                failure = error
        if not addresses:
            raise failure or DnsFailed(f"the name {host} has no address")
        return addresses

    async def texts(self, name: str) -> list[bytes]:
        """Return the TXT records of a name, at most `MAX_RECORDS`, each with its strings joined. Raises NoSuchName if
        the name does not exist, DnsFailed if the lookup fails.
        """
        return [b"".join(record.strings) for record in await self._records(name, "TXT")]

    async def caa(self, name: str) -> list[tuple[int, str, str]]:
        """Return the CAA records of a name, as (flags, tag, value); none if the name does not exist.

        Raises DnsFailed, also if there are `MAX_RECORDS` records or more.
        """
        try:
            records = await self._records(name, "CAA")
        except NoSuchName:
            return []
        if len(records) == MAX_RECORDS:
            raise DnsFailed(f"the name {name} has too many CAA records")
        return [
            (one.flags, one.tag.decode("ascii", "replace"), one.value.decode("ascii", "replace")) for one in records
        ]

    async def _records(self, name: str, kind: str) -> list[Any]:
        import dns.asyncresolver  # takes 90 ms, and most servers look up no records
        from dns.nameserver import Do53Nameserver

        resolver = dns.asyncresolver.Resolver(configure=not self._servers)
        resolver.cache = None
        if self._servers:
            resolver.nameservers = [Do53Nameserver(address, port) for address, port in self._servers]
        try:
            answer = await resolver.resolve(
                dns.name.from_text(name), kind, lifetime=self._within_s, raise_on_no_answer=False, search=False
            )
        except dns.resolver.NXDOMAIN:
            raise NoSuchName(f"the name {name} does not exist") from None
        except (dns.exception.DNSException, OSError, UnicodeError) as error:
            raise DnsFailed(f"the name {name} cannot be looked up: {type(error).__name__}") from None
        return [] if answer.rrset is None else list(answer.rrset)[:MAX_RECORDS]

    async def _system_addresses(self, host: str) -> list[Address]:
        try:
            async with asyncio.timeout(self._within_s):
                infos = await asyncio.get_running_loop().getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise DnsFailed(f"the name {host} has no address") from None
        texts = dict.fromkeys(str(sockaddr[0]).partition("%")[0] for *_, sockaddr in infos)
        return [ip_address(text) for text in texts][:MAX_RECORDS]


def parse_name_servers(text: str) -> list[tuple[str, int]]:
    """Return the name servers in a text: `ADDRESS[:PORT]` separated by spaces, for IPv6 with a port `[ADDRESS]:PORT`.
    Raises Invalid for other text.
    """
    servers: list[tuple[str, int]] = []
    for word in text.split():
        host, _, port = word.rpartition(":") if word.count(":") == 1 or word.startswith("[") else (word, "", "53")
        if word.startswith("[") and word.endswith("]"):
            host, port = word, "53"
        try:
            address = ip_address(host.removeprefix("[").removesuffix("]"))
            number = int(port)
        except ValueError:
            hint = "write, for example, 192.0.2.53 or [2001:db8::53]:5353"
            raise Invalid(f"the name server {word[:64]!a} is not ADDRESS[:PORT]", hint=hint) from None
        if not 1 <= number <= 65535:
            raise Invalid(f"the port of the name server {word[:64]!a} is not 1 to 65535")
        servers.append((str(address), number))
    return servers
