"""An HTTP forward proxy for a program that must not see the secrets of its agent.

strictness   the request heads that are accepted
injection    placeholders in requests, and their replacement by secrets
masking      asterisks in place of secrets in answers
inflating    decompressed bodies, in which secrets are searched
frames       the payloads of the WebSocket frames that the program sends, unmasked
authority    the certificate authority of one start of the proxy, in memory only
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
