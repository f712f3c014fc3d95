"""An ASGI application that answers with the caller's task."""

from __future__ import annotations

from ostiary.asgi import VERIFIED, Receive, Scope, Send


async def who(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the id of the task of the caller."""
    assert scope["type"] == "http"
    body = scope[VERIFIED].principal.claims.task.encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})
