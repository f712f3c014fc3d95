"""An ASGI application behind a guard, and signed requests."""

from __future__ import annotations

import re
from typing import Any

import httpx2

from harness.feeder import Feeder
from ostiary.asgi import VERIFIED, Receive, Scope, Send
from ostiary.guard import Guard

ORIGIN = "https://files.example.org"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Says who calls; fails where it is told to."""
    if scope["path"] == "/files/bad":
        raise ZeroDivisionError
    body = scope[VERIFIED].principal.claims.client_id.encode()
    await send({"type": "http.response.start", "status": 404 if scope["path"] == "/files/gone" else 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def signed(guard: Guard, feeder: Feeder, method: str, path: str, **token: Any) -> dict[str, str]:
    """The headers of a request that shows who it is."""
    text = feeder.token(**token)
    uri = f"{ORIGIN}{path.partition('?')[0]}"
    proof = feeder.proof(text, nonce=guard._proofs.nonce(), method=method, uri=uri)
    return {"authorization": f"DPoP {text}", "dpop": proof}


def records(guard: Guard) -> list[dict[str, Any]]:
    batch = guard._spool.batch(count=100, size=1 << 20)
    return [] if batch is None else batch.records


def error(response: httpx2.Response) -> str | None:
    """The error in the challenge."""
    found = re.search(r'error="([^"]+)"', response.headers.get("www-authenticate", ""))
    return None if found is None else found[1]
