"""`kill -9` in the middle of issuing: the server knows every certificate, and no revocation is lost."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from ostiaryd.certs import flows
from ostiaryd.certs.store import certificates
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.pages import Page
from ostiaryd.ground.world import open_world
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.model import decode_entry
from tests.faults.tally import Tally

KILLS = 5
"""Kills of one round, twice as many in the long form: the ten rounds of `make faults` make 100 on each database."""


def issue_and_kill(config: Config, seconds: float) -> tuple[set[bytes], set[bytes]]:
    """Let a process issue, and kill it; return the certificates and the revocations that it had acknowledged."""
    command = [sys.executable, "-m", "tests.certs.issuer", config.data_dir, config.database_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while lines[-1][:1] not in (b"-", b""):  # it is under way once a certificate is revoked
            lines.append(process.stdout.readline())
        time.sleep(seconds)
        process.kill()
        lines.append(process.stdout.read())
    complete = b"".join(lines).rpartition(b"\n")[0].decode().split()  # a line cut by the kill does not count
    issued, revoked = ({bytes.fromhex(line[1:]) for line in complete if line[0] == sign} for sign in "+-")
    return issued, revoked


@pytest.mark.slow
async def test_every_acknowledged_certificate_and_revocation_is_known_after_a_kill(
    config: Config, seed: int, rounds: int, tally: Tally
) -> None:
    rng = random.Random(f"certificates {seed}")
    issued: set[bytes] = set()
    revoked: set[bytes] = set()
    unknown = lost = differing = 0
    kills = KILLS * min(rounds, 2)
    for _ in range(kills):
        more_issued, more_revoked = issue_and_kill(config, rng.uniform(0, 0.3))
        issued, revoked = issued | more_issued, revoked | more_revoked
        async with open_world(config) as world:
            reader, now = world.db.read(), world.now()
            stored = {der: flows.find_presented(reader, der, now=now) for der in issued}
            unknown += sum(one is None for one in stored.values())
            lost += sum(one is not None and one.revoked_at is None for der, one in stored.items() if der in revoked)
            # PostgreSQL may still carry out the last commit of the killed process: both are read in one snapshot
            entries, rows = await world.db.scan(lambda reader: (_entries(reader), _rows(reader)))
            differing += len(entries ^ rows)
    tally("an acknowledged certificate is known after kill -9", broken=unknown, of=len(issued))
    tally("a revocation is kept after kill -9", broken=lost, of=len(revoked))
    tally("certificates and entries are the same after kill -9", broken=differing, of=kills)


def _entries(reader: Reader) -> set[str]:
    """Return the serial numbers of the certificates that the ledger says were issued."""
    frontier, _ = ledger.get_head(reader)
    entries = map(decode_entry, ledger.list_entry_bodies(reader, 0, frontier.size))
    return {str(entry.object) for entry in entries if (entry.action, entry.outcome) == ("cert.issue", "ok")}


def _rows(reader: Reader) -> set[str]:
    serials, after = set[str](), ""
    while page := certificates.page(reader, Page(1000, after)):
        serials |= {one.serial for one in page}
        after = page[-1].serial
    return serials
