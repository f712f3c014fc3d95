"""Warnings about neglected certificates: a certificate is neglected if it ends soon without a renewal, or if its
renewal fails. Each warning is an entry, and a finding about the agent that holds the certificate.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from ostiary.protocol.errors import Conflict
from ostiary.provenance.noticing import Noticed
from ostiaryd.certs import flows as certs
from ostiaryd.certs.flows import renewals
from ostiaryd.certs.flows.renewals import OwnCertificate
from ostiaryd.certs.model import SECOND, Certificate
from ostiaryd.ground.database import Reader
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.ledger.model import Entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import is_person_id
from ostiaryd.watch.flows.findings import record_finding
from ostiaryd.watch.model import NEGLECTED_CERTIFICATE

WARN = "cert.warn"
FIND = "watch.find"
POINTS = 1
"""Points of the finding: the minimum, since an expired certificate is an outage, not a suspicion."""


class OwnWarnings:
    """Serial numbers of the server's own certificates (of its listeners and authorities) about which this process has
    already warned. Use it only on the event loop.
    """

    def __init__(self, world: World) -> None:
        self.serials: set[str] = set()


class CertificateFigures(NamedTuple):
    """Figures about certificates: the number in force by profile, the number of neglected ones (their end is near
    without a renewal, or renewals fail), the number with failed renewals, and the server's own certificates with their
    ends.
    """

    in_force: Counter[str]
    neglected: int
    failing: int
    own: list[OwnCertificate]


async def warn_of_certificates(world: World) -> None:
    """Record a warning in the ledger about each neglected certificate (its end is near without a renewal, or renewals
    fail), once per certificate; and about each of the server's own certificates that ends soon, once per certificate
    and process.
    """
    days = world.config.certificate_warning_days
    neglected = await world.db.scan(lambda reader: renewals.list_neglected(reader, now=world.now(), days=days))
    for certificate, failures in neglected:
        with suppress(Conflict):  # another server of this database has recorded the warning
            await act(world, WARN, partial(_warn, certificate=certificate, failures=failures))
    own = await world.db.scan(lambda reader: renewals.list_own(reader, world.config))
    warned = world.get_singleton(OwnWarnings).serials
    warned &= {one.serial for one in own}
    for one in own:
        if one.serial not in warned and one.ends_soon(now=world.now(), days=days):
            await act(world, WARN, partial(_warn_of_own, own=one))
            warned.add(one.serial)


def _warn(act: Act, certificate: Certificate, failures: int) -> None:
    names = " ".join(map(str, certificate.names))[:150]
    if failures >= renewals.MAX_FAILED:
        says = f"{failures} renewals of the certificate of {names} failed"
    else:
        says = f"the certificate of {names} ends {_day(certificate.not_after)} and is not renewed"
    if not renewals.warn(act, certificate, says):
        raise Conflict("another server has already warned about this certificate", code="warned_already")
    holder = certificate.holder or ""
    if is_person_id(holder) or registry.get_agent(act.tx, holder) is None:
        return
    more = Act(act.tx, Entry(at=act.now, action=FIND))
    noticed = Noticed(detector=NEGLECTED_CERTIFICATE, points=POINTS, says=says)
    record_finding(more, noticed, agent=holder, task=certificate.task, entries=())
    act.further_entries += [more.entry, *more.further_entries]


def _warn_of_own(act: Act, own: OwnCertificate) -> None:
    says = f"{own.name} of this server ends {_day(own.not_after)} and is not renewed"
    registry.fill_entry(act, object=own.serial, says=says, not_after=own.not_after // SECOND)


def _day(at: int) -> str:
    return datetime.fromtimestamp(at // SECOND, UTC).strftime("%Y-%m-%d %H:%M UTC")


def examine_certificates(reader: Reader, world: World) -> CertificateFigures:
    """Return the figures about certificates that `ostiary doctor` and the metrics show."""
    now = world.now()
    in_force, failing = certs.count_certificates(reader, now=now)
    neglected = renewals.count_neglected(reader, now=now, days=world.config.certificate_warning_days)
    return CertificateFigures(in_force, neglected, failing, renewals.list_own(reader, world.config))
