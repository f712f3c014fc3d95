"""Verification of a request's signatures before its act: in several threads, in batches.

OpenSSL releases the interpreter lock, so the event loop continues and the write transaction is shorter. The act repeats
all checks, and takes the results of the signatures from `Keyring.signatures`. If a signature was not verified here, the
act verifies it.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

from ostiary.protocol import dpop
from ostiary.protocol.jose import InvalidToken
from ostiaryd.ground.crypto.signatures import Signed
from ostiaryd.ground.world import World
from ostiaryd.trust.model import Credentials, InvalidClient, parse_assertion

MAX_THREADS = 4
MAX_WAITING = 1024
"""Maximum number of requests that wait for this verification. Above it, signatures are verified in the acts."""

Request = tuple[Signed, str | None]
Results = list[tuple[Signed, InvalidToken | None]]


async def verify_ahead(world: World, credentials: Credentials, unverified_proof: str | None) -> None:
    """Verify the client assertion and then the DPoP proof of a request to the token endpoint.

    Only keys that have authenticated a client before are used, and the proof is verified only if the assertion is
    genuine. A request of an unknown client therefore costs one verification, in the act, which refuses the request and
    records the entry.
    """
    verifier = world.get_singleton(Verifier)
    # under such load most requests expire before their act, and the verification would be wasted
    if not verifier.has_room or world.writer.is_crowded:
        return
    try:
        unverified = parse_assertion(credentials)
    except InvalidClient:  # the act refuses the request again, and records the refusal
        return
    if (key := world.keys.signatures.key(unverified.header.get("kid"))) is not None:
        await verifier.verify(Signed(key, unverified.signature, unverified.signing_input), unverified_proof)


class Verifier:
    """Threads that verify signatures. Use it only on the event loop. A machine with one processor has no
    such threads.
    """

    def __init__(self, world: World, *, threads: int | None = None) -> None:
        self._signatures = world.keys.signatures
        self._idle = max(0, min(MAX_THREADS, _processors() - 1)) if threads is None else threads
        self._pool = ThreadPoolExecutor(max(1, self._idle), thread_name_prefix="verifier")
        self._has_threads = self._idle > 0
        self._waiting: list[tuple[Request, asyncio.Future[None]]] = []

    @property
    def has_room(self) -> bool:
        """Return whether another verification can be queued."""
        return self._has_threads and len(self._waiting) < MAX_WAITING

    async def verify(self, assertion: Signed, unverified_proof: str | None) -> None:
        """Verify an assertion and, if the assertion is genuine, a proof. Return when the results are stored."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(((assertion, unverified_proof), future))
        if len(self._waiting) == 1:
            loop.call_soon(self._start)
        await future

    async def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _start(self) -> None:
        """Give the waiting verifications, divided equally, to the idle threads."""
        while self._idle and self._waiting:
            count = -(-len(self._waiting) // self._idle)
            batch, self._waiting = self._waiting[:count], self._waiting[count:]
            self._idle -= 1
            work = asyncio.get_running_loop().run_in_executor(self._pool, _verify, [request for request, _ in batch])
            futures = [future for _, future in batch]
            work.add_done_callback(lambda done, futures=futures: self._end(done, futures))  # type: ignore[misc]

    def _end(self, done: asyncio.Future[Results], futures: list[asyncio.Future[None]]) -> None:
        self._idle += 1
        if (error := done.exception()) is None:
            for signed, result in done.result():
                self._signatures.add(signed, result)
        for future in futures:
            if future.done():  # the request was cancelled
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
        self._start()


def _verify(batch: list[Request]) -> Results:
    results: Results = []
    for assertion, unverified_proof in batch:
        results.append((assertion, error := assertion.verify()))
        if error is None and unverified_proof is not None and (proof := _signed(unverified_proof)) is not None:
            results.append((proof, proof.verify()))
    return results


def _signed(unverified_proof: str) -> Signed | None:
    try:
        key, unverified = dpop.parse_proof(unverified_proof)
    except dpop.InvalidProof:  # the act refuses the request again, and records the refusal
        return None
    return Signed(key, unverified.signature, unverified.signing_input)


def _processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
