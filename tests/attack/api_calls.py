"""Calls of the whole application with a token and its proof."""

from __future__ import annotations

import json
from typing import Any

from tests.support.api_fixtures import ISSUER, Answer, Client, send
from tests.support.trust_fixtures import nonce_of


async def call(
    client: Client,
    token: str,
    method: str,
    path: str,
    body: Any = None,
    *,
    headers: tuple[tuple[str, str], ...] = (),
    uri: str = "",
) -> Answer:
    """A request with a token and a proof, good but for what is said."""
    proof = client.proof(
        method=method, uri=uri or ISSUER + path.partition("?")[0], access_token=token, nonce=nonce_of(client)
    )
    sent = [("authorization", f"DPoP {token}"), ("dpop", proof), ("content-type", "application/json"), *headers]
    return await send(client.app, method, path, headers=sent, body=b"" if body is None else json.dumps(body).encode())
