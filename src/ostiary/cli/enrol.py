"""`ostiary agent enrol`: exchange a join token and the proof of a new key for an identity.

The proof is a JWT of type `enrol+jwt` by the new key: `aud` the issuer, `jth` the base64url SHA-256 of the join token.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import httpx2

from ostiary import ambient
from ostiary.cli.files import NewKey, read_text
from ostiary.cli.output import facts
from ostiary.cli.session import Here, Word, decoded
from ostiary.protocol import jose

PROOF_S = 60
SECOND = 1_000_000


def enrol(*, join_token: Word, generate_key: Path, session: Here) -> None:
    """Enrol the first key of an agent, with the token of `ostiary agent join-token`.

    Args:
        join_token: Join token; `-` reads it from standard input.
        generate_key: File for the new private key (0600).
    """
    token = read_text(Path("-")).strip() if join_token == "-" else join_token
    key = NewKey.generate(generate_key)
    with httpx2.Client() as http:
        issuer = decoded(http.get(f"{session.url}/.well-known/oauth-authorization-server"))["issuer"]
        body = {"join_token": token, "jwk": key.public, "proof": _prove(key.private, token, issuer=issuer)}
        enrolled = decoded(http.post(f"{session.url}/enrol", json=body))
    key.save(enrolled["agent_id"], issuer=enrolled["issuer"])
    session.show(enrolled, facts)


def _prove(key: jose.PrivateKey, token: str, *, issuer: str) -> str:
    now = ambient.now() // SECOND
    claims = {"aud": issuer, "iat": now, "exp": now + PROOF_S, "jth": jose.b64u(sha256(token.encode()).digest())}
    return jose.sign_jwt(key, typ="enrol+jwt", claims=claims)
