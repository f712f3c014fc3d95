"""One client of one issuer, without I/O: discovery, tokens, proofs. Functions are generators that yield requests.

    metadata  RFC 8414                        token  client_credentials with private_key_jwt (RFC 7523), RFC 8707
    resource  RFC 9728, from the challenge    proof  DPoP (RFC 9449), nonces of both servers, one retry each
    step up   RFC 9470, from the challenge

`Agent` drives them with a blocking client, `AsyncAgent` with an asynchronous one, `Auth` inside any client of httpx2.
"""

from ostiary.client.drive import Auth, arun, run
from ostiary.client.flows import Client, Flow
from ostiary.client.target import StepUpNeeded, Target, Token, TokenRefused

__all__ = ["Auth", "Client", "Flow", "StepUpNeeded", "Target", "Token", "TokenRefused", "arun", "run"]
