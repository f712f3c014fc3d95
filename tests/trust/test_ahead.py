"""Signatures of a token request: verified in threads before the act, decided on inside it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness.registry_fixtures import newest_entry
from ostiary.protocol import dpop, jose
from ostiaryd.ground.crypto.signatures import MOST, Signatures, Signed
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.trust.flows import Verifier, verify_ahead
from ostiaryd.trust.flows.ahead import MAX_WAITING
from ostiaryd.trust.model import Credentials
from tests.support.api_fixtures import Client

KEY, OTHER = jose.generate("ES256"), jose.generate("ES256")
TEXT = b"text"
SIGNATURE = KEY.sign(TEXT)


def with_threads(client: Client, count: int) -> Verifier:
    """The verifier of the client's world, with that many threads whatever the machine has."""
    verifier = client.world._singletons[Verifier] = Verifier(client.world, threads=count)
    return verifier


def recorded(key: jose.PublicKey, record: Callable[[], object]) -> jose.PublicKey:
    """The same key; `record` is called at the beginning of each verification."""

    def verify(signature: bytes, text: bytes) -> None:
        record()
        key.verify(signature, text)

    return replace(key, _verify=verify)


async def ahead(client: Client, assertion: str, proof: str | None = None) -> None:
    await verify_ahead(client.world, Credentials(assertion), proof)


def spoiled(token: str) -> str:
    """The same token with another signature."""
    head, _, signature = token.rpartition(".")
    return f"{head}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def outcome(client: Client) -> tuple[Any, ...]:
    entry = newest_entry(client.world)
    return entry.action, entry.outcome, entry.object, entry.agent, entry.key, entry.reasons


async def test_signatures_verified_in_a_thread_are_not_verified_again_in_the_act(client: Client) -> None:
    with_threads(client, 1)
    where: list[str] = []
    key = client.world.keys.signatures.key(client.key.public.kid)
    assert key is not None, "the client has proved itself with it"
    of_proof = dpop.parse_proof(client.proof())[0]
    for one in (key, of_proof):  # the objects that the act uses too
        native = one._verify

        def verify(signature: bytes, text: bytes, native: Any = native) -> None:
            where.append(threading.current_thread().name.partition("_")[0])
            native(signature, text)

        object.__setattr__(one, "_verify", verify)
    assert (await client.ask()).status == 200
    assert where == ["verifier", "verifier"]


async def test_a_token_is_issued_when_the_verifier_has_no_threads(client: Client) -> None:
    with_threads(client, 0)
    assert (await client.ask()).status == 200


async def test_a_key_that_is_revoked_between_verification_and_act_is_refused(client: Client) -> None:
    with_threads(client, 1)
    assertion, proof = client.assertion(), client.proof()
    await ahead(client, assertion, proof)
    await act(client.world, "key.revoke", lambda act: registry.revoke_key(act, client.key.public.thumbprint))
    answer = await client.ask(client_assertion=assertion, proof=proof)
    assert (answer.status, answer.error) == (401, "invalid_client")
    assert newest_entry(client.world).agent is None


async def test_a_verification_result_does_not_count_for_another_key_with_the_same_kid(client: Client) -> None:
    with_threads(client, 1)
    assertion, proof = client.assertion(), client.proof()
    await ahead(client, assertion, proof)
    successor = jose.generate("ES256", kid=client.key.public.kid)
    await act(client.world, "key.revoke", lambda act: registry.revoke_key(act, client.key.public.thumbprint))
    await act(client.world, "key.add", lambda act: registry.add_key(act, client.id, dict(successor.public.jwk)))
    answer = await client.ask(client_assertion=assertion, proof=proof)
    assert (answer.status, answer.error) == (401, "invalid_client")
    assert "signature" in answer.json["error_description"]
    client.key = successor
    assert (await client.ask()).status == 200


@pytest.mark.parametrize("what", ["assertion", "proof", "both", "replayed", "no proof", "not a proof"])
async def test_a_refusal_leaves_the_same_entry_with_and_without_verifier_threads(client: Client, what: str) -> None:
    seen = []
    for threads in (0, 1):
        with_threads(client, threads)
        assertion, proof = client.assertion(), client.proof()
        if what in ("assertion", "both"):
            assertion = spoiled(assertion)
        if what in ("proof", "both"):
            proof = spoiled(proof)
        if what == "replayed":
            assert (await client.ask(client_assertion=assertion, proof=proof)).status == 200
        sent = {"no proof": None, "not a proof": "x.y"}.get(what, proof)
        answer = await client.ask(client_assertion=assertion, proof=sent)
        seen.append((answer.status, answer.body, outcome(client)))
    assert seen[0] == seen[1]
    assert seen[0][0] in (400, 401)


async def test_a_proof_is_not_verified_after_an_invalid_assertion_or_an_assertion_of_an_unknown_key(
    client: Client,
) -> None:
    verifier, signatures = with_threads(client, 1), client.world.keys.signatures
    await ahead(client, spoiled(client.assertion()), client.proof())
    assert len(signatures._new) == 1, "the assertion alone"
    await ahead(client, client.assertion(key=OTHER), client.proof(key=OTHER))
    await ahead(client, "x.y.z", client.proof())
    assert len(signatures._new) == 1
    await verifier.close()


async def test_the_queue_of_the_verifier_threads_is_bounded(client: Client) -> None:
    verifier = with_threads(client, 1)
    go_on, is_in = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait() -> None:
        loop.call_soon_threadsafe(is_in.set)
        go_on.wait(10)  # so that a test that fails ends

    slow = Signed(recorded(KEY.public, wait), SIGNATURE, TEXT)
    first = asyncio.ensure_future(verifier.verify(slow, None))
    await is_in.wait()
    quick = Signed(KEY.public, SIGNATURE, TEXT)
    waiting = [asyncio.ensure_future(verifier.verify(quick, None)) for _ in range(MAX_WAITING - 1)]
    await asyncio.sleep(0)
    assert verifier.has_room
    waiting.append(asyncio.ensure_future(verifier.verify(quick, None)))
    await asyncio.sleep(0)
    assert not verifier.has_room
    answer = await client.ask()  # does not wait for the threads
    assert answer.status == 200
    waiting[0].cancel()
    go_on.set()
    await asyncio.gather(first, *waiting[1:])
    assert verifier.has_room


def test_a_verification_result_serves_once_for_the_same_key_signature_and_text() -> None:
    signatures = Signatures()
    count: list[int] = []
    key = recorded(KEY.public, lambda: count.append(1))
    signatures.add(Signed(key, SIGNATURE, TEXT), None)
    signatures.check(key, SIGNATURE, TEXT)
    assert not count
    signatures.check(key, SIGNATURE, TEXT)
    assert len(count) == 1
    signatures.add(Signed(key, SIGNATURE, TEXT), None)
    for other_key, signature, text in ((OTHER.public, SIGNATURE, TEXT), (key, bytes(64), TEXT), (key, SIGNATURE, b"")):
        with pytest.raises(jose.InvalidToken):
            signatures.check(other_key, signature, text)


def test_a_signature_found_invalid_is_refused_without_a_second_verification() -> None:
    signatures = Signatures()
    signatures.add(Signed(KEY.public, SIGNATURE, TEXT), jose.InvalidToken("not genuine"))
    with pytest.raises(jose.InvalidToken, match="not genuine"):
        signatures.check(KEY.public, SIGNATURE, TEXT)


def test_stored_verification_results_and_keys_are_bounded() -> None:
    signatures = Signatures()
    for number in range(3 * MOST):
        signatures.add(Signed(KEY.public, SIGNATURE, str(number).encode()), None)
        signatures.learn(replace(KEY.public, kid=str(number)))
        assert len(signatures._new) + len(signatures._old) <= 2 * MOST
        assert len(signatures._keys) <= 2 * MOST
    signatures.check(KEY.public, SIGNATURE, str(2 * MOST).encode())  # one of the newest MOST is remembered
    assert signatures.key(str(3 * MOST - 1)) is not None
    assert signatures.key(None) is signatures.key("0") is None
