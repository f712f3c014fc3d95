"""Replay by an attacker on the network: a used proof or assertion, sent again in another form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.clock import Clock, SeededRandom
from harness.feeder import URI, Feeder
from ostiary.asgi import GuardASGI
from ostiary.guard import Guard
from ostiary.guard.proofs import Proofs
from ostiary.protocol import dpop, jose
from ostiary.protocol.dpop import InvalidProof
from ostiaryd.trust import flows as trust
from tests.support.api_fixtures import ASSERTION_TYPE, Client, client, register, send
from tests.support.trust_fixtures import proof_of

__all__ = ["client"]

ORIGIN = "https://files.example.org"
SPELLINGS = ("/mc%70", "/%6Dcp", "/./mcp", "/x/../mcp", "/mcp/.")


@pytest.mark.parametrize("path", SPELLINGS[:-1])
def test_a_proof_cannot_be_replayed_at_another_spelling_of_its_uri(guard: Guard, feeder: Feeder, path: str) -> None:
    token = feeder.token()
    proof = feeder.proof(token, nonce=guard._proofs.nonce())
    shown: dict[str, Any] = {"authorization": f"DPoP {token}", "proof": proof, "method": "POST"}
    guard.verify(uri=URI, **shown)
    with pytest.raises(InvalidProof, match="used before"):
        guard.verify(uri=ORIGIN + path, **shown)


async def test_an_overheard_request_with_an_encoded_path_is_refused(guard: Guard, feeder: Feeder) -> None:
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


async def test_a_proof_checked_at_the_end_of_its_window_cannot_be_replayed(client: Client, clock: Clock) -> None:
    """It is checked in the last instant of its window, and spent when the memory of it has just been pruned."""
    world, api = client.world, client.world.config.api
    token = (await client.token(resource=api))["access_token"]
    proof = proof_of(client, token, "/api/v1/tasks")
    made_at = clock.now // 1_000_000 * 1_000_000
    request = trust.Request("GET", f"{api}/tasks", f"DPoP {token}", proof)

    def verify() -> trust.Access:
        return trust.verify_access(
            request, audience=api, reader=world.db.read(), now=clock.now, keys=world.keys, config=world.config
        )

    first = verify()
    assert first.proof is not None
    await trust.spend_at_once(world, first.proof)
    clock.now = made_at + dpop.WINDOW
    second = verify()
    assert second.proof is not None
    clock.advance(us=1)
    await trust.prune(world)
    with pytest.raises(InvalidProof, match="used before"):
        await trust.spend_at_once(world, second.proof)


async def test_a_used_assertion_is_refused_with_another_key(client: Client) -> None:
    assertion = client.assertion()
    assert (await client.ask(client_assertion=assertion)).status == 200
    stolen = await client.ask(client_assertion=assertion, proof=client.proof(key=jose.generate("ES256")))
    assert stolen.error == "invalid_client"


async def test_the_assertion_of_a_refused_request_cannot_be_replayed(client: Client) -> None:
    token = (await client.token())["access_token"]
    other, key = await register(client.world, name="other")
    thief = Client(client.app, client.world, other.agent_id, key, client.nonce)
    assertion = thief.assertion()
    form = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
    assert (await thief.post("/revoke", form | {"token": token})).error == "invalid_grant"
    assert (await thief.post("/introspect", form | {"token": token})).error == "invalid_client"


def test_a_proof_cannot_be_replayed_while_another_thread_prunes_it(dice: SeededRandom) -> None:
    """The thread reads the clock in the last instant of the proof, and goes on after the memory of it was dropped."""
    key, clock = jose.generate("ES256"), Clock()
    meanwhile: list[Callable[[], None]] = []

    def now() -> int:
        read = clock.now
        while meanwhile:
            meanwhile.pop()()
        return read

    proofs = Proofs(secret=dice(32), now=now)
    nonce = proofs.nonce()

    def show(jti: str, made_at: int) -> None:
        proof = dpop.make_proof(key, method="POST", uri=URI, now=made_at, jti=jti, nonce=nonce, access_token="t")
        proofs.check(proof, method="POST", uri=URI, access_token="t", jkt=key.public.thumbprint)

    made_at = clock.now
    show("overheard", made_at)
    clock.advance(us=dpop.WINDOW)

    def another() -> None:
        clock.advance(us=1)
        show("another", clock.now)

    meanwhile.append(another)
    with pytest.raises(InvalidProof):
        show("overheard", made_at)
