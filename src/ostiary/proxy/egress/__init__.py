"""An HTTP forward proxy for a program that must not see the secrets of its agent.

strictness   which request heads are taken
injection    placeholders, and requests with the secrets in them
masking      answers without the secrets
inflating    bodies without their compression, for the search
frames       payloads of a WebSocket, as the program sends them
authority    the certificates of one run
dialing      connections to servers: checked addresses, verified certificates
tools        requests as calls of tools, for the guard
secrets      destinations and secrets from the Ostiary server
server       HTTP/1.1 with the program and with servers
"""

from ostiary.proxy.egress.authority import RunAuthority
from ostiary.proxy.egress.dialing import Dialer
from ostiary.proxy.egress.secrets import SecretSource
from ostiary.proxy.egress.server import EgressProxy, serve_egress

__all__ = ["Dialer", "EgressProxy", "RunAuthority", "SecretSource", "serve_egress"]
