"""Certificates of one core: issue with a durable entry, OCSP answers, revocation lists; beside the ceiling of signing.

`--live N` measures a second server beside it, by turns, that has N certificates in force (to store 1,000,000 takes some
minutes of a core), and exits with 1 if issue, OCSP or revocation lists are slower there by more than a third.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from statistics import median

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from msgspec.structs import replace

from harness.registry_fixtures import register_agent
from ostiaryd.certs import flows
from ostiaryd.certs.flows.status import OcspResponder, RevocationLists
from ostiaryd.certs.model import Certificate, CertificateRequest, IssuedCertificate, encode_public_key
from ostiaryd.certs.model.certificate import HOLDING, RevocationReason, build_certificate, holding_id, make_serial
from ostiaryd.certs.store import certificates
from ostiaryd.ground.config import load_config
from ostiaryd.ground.database import Tx
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry.model import AgentId, Holding, HoldingId
from ostiaryd.registry.store import holdings

IN_FLIGHT, WAVES, TURNS = 64, 40, 3
ANSWERS, LIVE_ANSWERS, BUILT = 20_000, 400, 3000
ROWS = 10_000
REVOKED, LISTS = 100, 30
SLOWER = 1 / 3
"""part by which the rates may fall beside many certificates"""


def request() -> CertificateRequest:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return CertificateRequest(profile="agent", public_key=encode_public_key(key), agent="bot")


class Rates(dict[str, list[tuple[float, float]]]):
    """Counts for each second of the processor, and of the clock, of each turn."""

    def note(self, what: str, count: int, cpu: float, wall: float) -> None:
        self.setdefault(what, []).append((count / cpu, count / wall))

    def median(self, what: str) -> float:
        """Return the median count for each second of the processor."""
        return median(cpu for cpu, _ in self[what])

    def show(self) -> None:
        for what, turns in self.items():
            print(f"{what:46} {self.median(what):>10,.0f} /cpu-s {median(wall for _, wall in turns):>10,.0f} /s wall")

    def measure(self, what: str, count: int, run: Callable[[], object]) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(count):
            run()
        self.note(what, count, time.process_time() - cpu, time.perf_counter() - wall)


async def issue_many(world: World, rates: Rates) -> IssuedCertificate:
    """Issue one certificate in each act, `IN_FLIGHT` acts at a time; return the last certificate."""
    requests = [request() for _ in range(WAVES * IN_FLIGHT)]
    cpu, wall = time.process_time(), time.perf_counter()
    for wave in range(WAVES):
        some = requests[wave * IN_FLIGHT : (wave + 1) * IN_FLIGHT]
        done = await asyncio.gather(*[act(world, "cert.issue", partial(issue, world, one)) for one in some])
    rates.note(f"issued, {IN_FLIGHT} in flight", len(requests), time.process_time() - cpu, time.perf_counter() - wall)
    return done[-1]


def issue(world: World, one: CertificateRequest, act: Act) -> IssuedCertificate:
    return flows.issue(act, one, config=world.config)


def revoke(serial: str, act: Act) -> None:
    flows.revoke(act, serial, RevocationReason.SUPERSEDED)


def question(issued: IssuedCertificate, *, nonce: bool = False) -> bytes:
    leaf, issuer = (x509.load_der_x509_certificate(der) for der in (issued.certificate.der, issued.chain[0]))
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, SHA256())
    if nonce:
        builder = builder.add_extension(x509.OCSPNonce(b"n" * 32), critical=False)
    return builder.build().public_bytes(Encoding.DER)


def measure_answers(world: World, issued: IssuedCertificate, rates: Rates) -> None:
    responder, asked, live = OcspResponder(world), question(issued), question(issued, nonce=True)
    rates.measure("OCSP answers, signed before", ANSWERS, lambda: responder.answer(asked))
    rates.measure("OCSP answers, with a nonce", LIVE_ANSWERS, lambda: responder.answer(live))


async def measure_lists(world: World, authority: str, rates: Rates) -> None:
    """Build the complete revocation list and its first partition anew, and look at kept ones."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(LISTS):
        lists = RevocationLists(world)
        for shard in (None, 0):
            await lists.get(authority, shard)
    rates.note("revocation lists built", 2 * LISTS, time.process_time() - cpu, time.perf_counter() - wall)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(LISTS * 100):
        await lists.get(authority, None)
    rates.note("revocation lists, kept", LISTS * 100, time.process_time() - cpu, time.perf_counter() - wall)


async def measure_all(world: World, rates: Rates) -> IssuedCertificate:
    issued = await issue_many(world, rates)
    measure_answers(world, issued, rates)
    await measure_lists(world, issued.certificate.authority, rates)
    return issued


def measure_ceiling(world: World, issued: IssuedCertificate, rates: Rates) -> None:
    authority = flows.find_authority(world.db.read(), issued.certificate.authority)
    issuer = flows.open_issuer(world.db.read(), authority, keys=world.keys)
    one = request()

    def build() -> bytes:
        return build_certificate(
            issuer=issuer.certificate,
            issuer_key=issuer.key,
            serial=make_serial(world.now(), os.urandom(10)),
            subject="ag_bench",
            public_key=one.public_key,
            names=issued.certificate.names,
            usages=("client", "server"),
            not_before=issued.certificate.not_before,
            not_after=issued.certificate.not_after,
        )

    rates.measure("ceiling: building and signing alone", BUILT, build)


async def fill(world: World, issued: IssuedCertificate, count: int) -> None:
    """Store further certificates in force and their holdings, with other serial numbers and keys."""
    for start in range(0, count, ROWS):
        rows: list[Certificate] = []
        for _ in range(min(ROWS, count - start)):
            serial = make_serial(world.now(), os.urandom(10))
            rows.append(replace(issued.certificate, serial=serial, key_digest=os.urandom(32).hex()))
        await world.writer.submit(partial(store_rows, rows))


def store_rows(rows: list[Certificate], tx: Tx) -> None:
    for row in rows:
        certificates.insert(tx, row)
        assert row.holder is not None
        holding = Holding(
            id=HoldingId(holding_id(row.serial)),
            kind=HOLDING,
            agent=AgentId(row.holder),
            task=row.task,
            jkt=row.key_digest,
            expires_at=row.not_after,
        )
        holdings.insert_holding(tx, holding)


async def prepare(world: World) -> IssuedCertificate:
    """Register the agent, and issue and revoke some certificates; return the last one."""
    await register_agent(world)
    for _ in range(REVOKED):
        issued = await act(world, "cert.issue", partial(issue, world, request()))
        await act(world, "cert.revoke", partial(revoke, issued.certificate.serial))
    return issued


async def main(live: int) -> int:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as large_folder:
        async with (
            open_world(load_config(environ={}, data_dir=folder)) as world,
            open_world(load_config(environ={}, data_dir=large_folder)) as large,
        ):
            few, many = Rates(), Rates()
            await prepare(world)
            if live:
                began, cpu = time.monotonic(), time.process_time()
                await fill(large, await prepare(large), live)
                wall, cpu = time.monotonic() - began, time.process_time() - cpu
                print(f"{live:,} certificates stored in {wall:.0f} s, {cpu:.0f} s of the processor", flush=True)
            for _ in range(TURNS):
                issued = await measure_all(world, few)
                if live:
                    await measure_all(large, many)
            measure_ceiling(world, issued, few)
    few.show()
    if not live:
        return 0
    print(f"beside {live:,} certificates in force:")
    many.show()
    slower = {what: 1 - many.median(what) / few.median(what) for what in many}
    for what, part in slower.items():
        print(f"{what:46} {part:>+10.0%} slower (at most {SLOWER:.0%})")
    return int(any(part > SLOWER for part in slower.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--live", type=int, default=0)
    sys.exit(asyncio.run(main(parser.parse_args().live)))
