"""Connections to servers: every address of a name is checked, and the connection goes to a checked address.

A private address is refused, unless the destination of a secret or an option permits private addresses for that host.
Link-local addresses, which include the metadata services of clouds, are always refused
(`ostiary.protocol.denied_networks`).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Collection
from ipaddress import ip_address

from ostiary.protocol.denied_networks import is_private, is_public
from ostiary.proxy.connections import CHUNK
from ostiary.proxy.egress.strictness import Authority
from ostiary.proxy.entrance import Rejected

CONNECT_S = 10.0
MAX_ADDRESSES = 4
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Dialer:
    """The opener of connections to servers. `private`: the hosts for which private addresses are permitted."""

    def __init__(self, tls: ssl.SSLContext, private: Collection[str] = ()) -> None:
        """`tls`: the context that verifies certificates and host names."""
        self._tls, self._private = tls, frozenset(private)

    async def connect(self, at: Authority, *, is_tls: bool, may_be_private: bool) -> Connection:
        """Return a connection to a server. `may_be_private`: private addresses are permitted, also if the host is not
        in `private`. Raises Rejected if the server cannot be reached, does not answer in time, has an address that is
        not permitted, or has a certificate that is not trusted.
        """
        is_open = may_be_private or at.host in self._private
        try:
            async with asyncio.timeout(CONNECT_S):
                addresses = await _resolve(at, is_open=is_open)
                return await self._connect(addresses, at, is_tls=is_tls)
        except TimeoutError:
            raise Rejected(504, "upstream_timeout", f"{at} does not answer", hint="try again") from None
        except ssl.SSLCertVerificationError as error:
            raise Rejected(
                502,
                "upstream_certificate",
                f"the certificate of {at} is not valid: {error.verify_message}",
                hint="name the file of its authorities with --upstream-ca",
            ) from None
        except OSError as error:
            raise Rejected(502, "upstream_failed", f"{at} cannot be reached: {error.strerror or error}") from None

    async def _connect(self, addresses: list[str], at: Authority, *, is_tls: bool) -> Connection:
        """Connect to the first address that accepts a connection. Raises OSError if no address accepts a connection."""
        context, name = (self._tls, at.host) if is_tls else (None, None)
        last: OSError = OSError("no address")
        for address in addresses[:MAX_ADDRESSES]:
            try:
                return await asyncio.open_connection(
                    address, at.port, ssl=context, server_hostname=name, limit=CHUNK, flags=socket.AI_NUMERICHOST
                )
            except ssl.SSLError:
                raise
            except OSError as error:
                last = error
        raise last


async def _resolve(at: Authority, *, is_open: bool) -> list[str]:
    """Return the addresses of a host. Raises Rejected if one of them is not permitted."""
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(at.host, at.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        hint = "check the name, and the resolver of the proxy's machine"
        raise Rejected(502, "unknown_host", f"the name {at.host} cannot be resolved", hint=hint) from None
    addresses = [str(sockaddr[0]).partition("%")[0] for *_, sockaddr in infos]
    for address in map(ip_address, addresses):
        if not (is_public(address) or (is_open and is_private(address))):
            hint = f"permit the host with --allow-private {at.host}" if is_private(address) else ""
            raise Rejected(403, "private_address", f"{at.host} resolves to an address that is not public", hint=hint)
    if not addresses:
        raise Rejected(502, "unknown_host", f"the name {at.host} has no address")
    return list(dict.fromkeys(addresses))
