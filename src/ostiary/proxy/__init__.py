"""A local HTTP proxy that adds tokens and proofs to the requests of any HTTP or MCP client.

entrance      which requests are taken: their `Host`, `Origin`, path, and headers
upstream      the same request with a token and a proof, to the one server that the proxy is for
connections   HTTP/1.1 with clients: one task for each connection, until the proxy is stopped
server        the requests of clients: bodies, streams, clients that go
"""

from ostiary.proxy.entrance import Entrance, Listen, capability_of
from ostiary.proxy.server import serve
from ostiary.proxy.upstream import Upstream

__all__ = ["Entrance", "Listen", "Upstream", "capability_of", "serve"]
