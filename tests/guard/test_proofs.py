"""Proofs at a guard: each once, each with a nonce that this life of the guard has given."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.clock import Clock, SeededRandom
from ostiary.guard import NonceNeeded
from ostiary.guard.proofs import NONCE_LIFETIME_US, Proofs
from ostiary.protocol import dpop, jose
from ostiary.protocol.errors import Unavailable

KEY = jose.generate("ES256")
URI = "https://files.example.org/mcp"
JKT = KEY.public.thumbprint


@pytest.fixture
def proofs(clock: Clock, dice: SeededRandom) -> Proofs:
    return Proofs(secret=dice(32), now=clock)


@pytest.fixture
def prove(clock: Clock) -> Callable[..., str]:
    def prove(jti: str, nonce: str | None, *, key: jose.PrivateKey = KEY) -> str:
        return dpop.make_proof(key, method="POST", uri=URI, now=clock(), jti=jti, nonce=nonce, access_token="t")

    return prove


def check(proofs: Proofs, proof: str, *, jkt: str = JKT) -> str | None:
    """Check for the request that all tests make; the next nonce."""
    return proofs.check(proof, method="POST", uri=URI, access_token="t", jkt=jkt)


def test_the_refusal_of_a_proof_without_a_nonce_carries_a_valid_nonce(
    proofs: Proofs, prove: Callable[..., str]
) -> None:
    with pytest.raises(NonceNeeded) as needed:
        check(proofs, prove("a", None))
    assert check(proofs, prove("b", needed.value.nonce)) is None


def test_a_proof_is_accepted_once(proofs: Proofs, prove: Callable[..., str]) -> None:
    proof = prove("a", proofs.nonce())
    check(proofs, proof)
    with pytest.raises(dpop.InvalidProof, match="used before"):
        check(proofs, proof)
    check(proofs, prove("b", proofs.nonce()))


def test_a_nonce_made_with_another_secret_is_refused(proofs: Proofs, clock: Clock, prove: Callable[..., str]) -> None:
    earlier = Proofs(secret=bytes(32), now=clock)
    with pytest.raises(NonceNeeded):
        check(proofs, prove("a", earlier.nonce()))


@pytest.mark.parametrize(
    ("age_us", "is_fresh"), [(NONCE_LIFETIME_US - 1, True), (NONCE_LIFETIME_US, False), (NONCE_LIFETIME_US + 1, False)]
)
def test_a_nonce_is_accepted_until_its_lifetime_ends(
    proofs: Proofs, clock: Clock, prove: Callable[..., str], age_us: int, is_fresh: bool
) -> None:
    nonce = proofs.nonce()
    clock.advance(us=age_us)
    if is_fresh:
        check(proofs, prove("a", nonce))
    else:
        with pytest.raises(NonceNeeded):
            check(proofs, prove("a", nonce))


@pytest.mark.parametrize(
    ("age_us", "is_renewed"), [(NONCE_LIFETIME_US // 2 - 1, False), (NONCE_LIFETIME_US // 2, True)]
)
def test_a_nonce_is_renewed_in_the_second_half_of_its_lifetime(
    proofs: Proofs, clock: Clock, prove: Callable[..., str], age_us: int, is_renewed: bool
) -> None:
    nonce = proofs.nonce()
    clock.advance(us=age_us)
    following = check(proofs, prove("a", nonce))
    assert (following is not None) is is_renewed
    if following is not None:
        check(proofs, prove("b", following))


def test_a_proof_by_a_key_other_than_that_of_the_token_is_refused(proofs: Proofs, prove: Callable[..., str]) -> None:
    with pytest.raises(dpop.InvalidProof):
        check(proofs, prove("a", proofs.nonce(), key=jose.generate("ES256")))


def test_a_proof_beyond_the_replay_memory_is_refused_until_older_proofs_expire(
    clock: Clock, dice: SeededRandom, prove: Callable[..., str]
) -> None:
    proofs = Proofs(secret=dice(32), now=clock, limit=2)
    check(proofs, prove("a", proofs.nonce()))
    check(proofs, prove("b", proofs.nonce()))
    with pytest.raises(Unavailable):
        check(proofs, prove("c", proofs.nonce()))
    clock.advance(us=dpop.WINDOW)
    with pytest.raises(Unavailable):
        check(proofs, prove("d", proofs.nonce()))
    clock.advance(us=1)
    check(proofs, prove("e", proofs.nonce()))


def test_a_used_proof_is_remembered_until_its_time_window_ends(
    proofs: Proofs, clock: Clock, prove: Callable[..., str]
) -> None:
    proof = prove("a", proofs.nonce())
    check(proofs, proof)
    clock.advance(us=dpop.WINDOW)
    check(proofs, prove("b", proofs.nonce()))  # which forgets what could not be shown any more
    with pytest.raises(dpop.InvalidProof, match="used before"):
        check(proofs, proof)
    clock.advance(1)
    with pytest.raises(dpop.InvalidProof, match="is 61 s ago"):
        check(proofs, proof)


def test_a_proof_is_accepted_once_across_concurrent_threads(proofs: Proofs, prove: Callable[..., str]) -> None:
    def show(proof: str) -> bool:
        try:
            check(proofs, proof)
        except dpop.InvalidProof:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        for number in range(50):
            proof = prove(f"proof-{number}", proofs.nonce())
            assert sum(threads.map(show, [proof] * 8)) == 1
