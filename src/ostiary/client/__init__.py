"""A client of one issuer, without I/O: discovery, tokens, proofs. Functions are generators that yield requests.

    metadata  RFC 8414, OpenID Connect        token  client_credentials with private_key_jwt (RFC 7523), RFC 8707
    resource  RFC 9728, from the challenge    proof  DPoP (RFC 9449), nonces of both servers
    step up   RFC 9470, from the challenge

The issuer is an Ostiary server or another authorization server. With another authorization server, client secrets are
supported too, and bearer tokens if the server does not offer DPoP. `Agent` drives the flows with a blocking client,
`AsyncAgent` with an asynchronous client, and `Auth` inside of any client of httpx2.
"""

from ostiary.client.drive import Auth, arun, run
from ostiary.client.flows import Client
from ostiary.client.steps import Flow
from ostiary.client.target import StepUpNeeded, Target, Token, TokenRefused

__all__ = ["Auth", "Client", "Flow", "StepUpNeeded", "Target", "Token", "TokenRefused", "arun", "run"]
