"""Neglected certificates, of which the server warns: certificates that expire soon without a renewal, or whose
renewals fail.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ostiary.protocol.certificate import load_pem_certificates
from ostiary.protocol.errors import Malformed
from ostiaryd.certs import store
from ostiaryd.certs.flows.own_tls import tls_files
from ostiaryd.certs.model.authority import SECOND, AuthorityKind, AuthorityState, microseconds, read_end
from ostiaryd.certs.model.certificate import Certificate
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import is_person_id

DAY = 86_400 * SECOND
MAX_FAILED = 3
"""Number of failed renewals of one certificate after which the server warns."""
WARNED_AT_ONCE = 100
MAX_COUNTED = 10_000


class OwnCertificate(NamedTuple):
    """A certificate that the server itself uses: the certificate of its listeners, or of an active authority."""

    name: str
    serial: str
    not_before: int
    not_after: int

    def ends_soon(self, *, now: int, days: int) -> bool:
        """Return whether the renewal of the certificate is overdue: less than `days` and less than a sixth of
        its lifetime are left.
        """
        left = self.not_after - now
        return left < days * DAY and left * store.certificates.LAST_PART < self.not_after - self.not_before


def list_neglected(reader: Reader, *, now: int, days: int) -> list[tuple[Certificate, int]]:
    """Return neglected certificates without a warning so far, each with its number of failed renewals: at most
    `WARNED_AT_ONCE` for each of the two reasons.

    A certificate is neglected if its renewal failed `MAX_FAILED` times, or if less than `days` and less than a sixth of
    its lifetime are left. The second reason applies only to certificates that live at least a day or replaced another
    certificate, and not to certificates that end with a declared task. A certificate is not neglected if its holder has
    a newer, unrevoked certificate with the same profile and names.
    """
    return store.certificates.neglected(
        reader, now=now, until=now + days * DAY, long=DAY, failures=MAX_FAILED, limit=WARNED_AT_ONCE
    )


def count_neglected(reader: Reader, *, now: int, days: int) -> int:
    """Return the number of neglected certificates, with and without a warning. At most `MAX_COUNTED` are counted for
    each of the two reasons of `list_neglected`; a certificate with both counts once.
    """
    return len(
        store.certificates.neglected(
            reader,
            now=now,
            until=now + days * DAY,
            long=DAY,
            failures=MAX_FAILED,
            limit=MAX_COUNTED,
            is_warned=True,
        )
    )


def warn(act: Act, certificate: Certificate, says: str) -> bool:
    """Record the warning `says` about a neglected certificate in the act's ledger entry. Return False if another server
    has recorded a warning before.
    """
    ends = certificate.not_after // SECOND
    registry.fill_entry(act, object=certificate.serial, says=says, not_after=ends, profile=certificate.profile)
    holder = certificate.holder or ""
    if is_person_id(holder):
        act.entry.person = holder
    else:
        agent = registry.get_agent(act.tx, holder)
        act.entry.agent, act.entry.owner = holder, None if agent is None else agent.owner
    return store.certificates.mark_warned(act.tx, certificate.serial)


def list_own(reader: Reader, config: Config) -> list[OwnCertificate]:
    """Return the certificates of the listeners and of the active authorities. A certificate file that cannot be read is
    left out of the list; `ostiary doctor` reports the file.
    """
    own = [
        OwnCertificate(f"the {one.kind} `{one.subject}`", one.authority_id, one.not_before, one.not_after)
        for one in store.authorities.authorities(reader)
        if one.state is AuthorityState.ACTIVE and one.kind is not AuthorityKind.RESPONDER
    ]
    path = tls_files(config).certificate if config.tls == "auto" else config.tls_cert
    if not path:
        return own
    try:
        leaf = load_pem_certificates(Path(path).read_text())[0]
    except (OSError, ValueError, Malformed):
        return own
    serial = f"{leaf.serial_number:032x}"
    listener = OwnCertificate("the TLS certificate", serial, microseconds(leaf.not_valid_before_utc), read_end(leaf))
    return [listener, *own]
