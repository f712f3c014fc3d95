"""Somebody on the wire: what was shown once, shown again in another dress."""

from __future__ import annotations

from typing import Any

import pytest

from ostiary.asgi import GuardASGI
from ostiary.core.dpop import InvalidProof
from ostiary.guard import Guard
from tests.guard.feeder import URI, Feeder
from tests.tokens.party import send

ORIGIN = "https://files.example.org"
SPELLINGS = ("/mc%70", "/%6Dcp", "/./mcp", "/x/../mcp", "/mcp/.")


@pytest.mark.parametrize("path", SPELLINGS[:-1])
def test_a_proof_does_not_count_again_at_another_spelling_of_its_uri(guard: Guard, feeder: Feeder, path: str) -> None:
    token = feeder.token()
    proof = feeder.proof(token, nonce=guard._proofs.nonce())
    shown = {"authorization": f"DPoP {token}", "proof": proof, "method": "POST"}
    guard.verify(uri=URI, **shown)
    with pytest.raises(InvalidProof, match="used before"):
        guard.verify(uri=ORIGIN + path, **shown)


async def test_a_request_that_was_overheard_is_refused_at_an_application_that_decodes_paths(
    guard: Guard, feeder: Feeder
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"secret"})

    guarded = GuardASGI(app, guard, tool={"POST /mcp": "read_file"})
    token = feeder.token()
    headers = [
        ("authorization", f"DPoP {token}"),
        ("dpop", feeder.proof(token, nonce=guard._proofs.nonce())),
    ]
    assert (await send(guarded, "POST", "/mcp", headers=headers)).status == 200

    async def overheard(scope: Any, receive: Any, send: Any) -> None:
        await guarded({**scope, "raw_path": b"/%6Dcp"}, receive, send)

    assert (await send(overheard, "POST", "/mcp", headers=headers)).status == 401
