"""A local HTTP proxy that adds tokens and proofs to the requests of any HTTP or MCP client.

entrance      checks of requests: `Host`, `Origin`, path, and headers
upstream      the accepted request with a token and a proof, sent to the only server to which the proxy forwards
connections   HTTP/1.1 with clients: one task for each connection, until the proxy is stopped
server        the requests of clients: bodies, streams, and clients that disconnect
"""

from ostiary.proxy.entrance import Entrance, Listen, capability_of
from ostiary.proxy.server import serve
from ostiary.proxy.upstream import Upstream

__all__ = ["Entrance", "Listen", "Upstream", "capability_of", "serve"]
