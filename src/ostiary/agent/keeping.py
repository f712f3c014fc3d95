"""A certificate that is kept renewed in a folder."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple, TextIO

from ostiary import ambient
from ostiary.agent.blocking import Agent
from ostiary.agent.certificates import SECOND, AgentCertificate, load_certificate, prepare_folder, renewal_lock
from ostiary.agent.identity import ServerRefused
from ostiary.protocol.errors import Conflict, Forbidden, Invalid, Refused

RETRY_S, MAX_RETRY_S = 5.0, 300.0
"""Seconds between two attempts if the first one failed, and their maximum. The time doubles after each failure."""
NAP_S = 30.0
"""Maximum seconds of one wait. Then the folder and the clocks are read again, so that a machine that was suspended
renews after it resumes, and a certificate that another process wrote is noticed.
"""
CHECK_S = 300.0
"""Maximum seconds between two questions to the server whether the certificate in the folder is revoked. Each time is
shortened at random by up to a fifth, so that the questions of many agents do not coincide.
"""
_DECOMMISSIONED = "the agent is decommissioned"
"""Beginning of the server's message to an agent that never gets a certificate again."""


@dataclass(frozen=True, slots=True)
class CertificateOrder:
    """The certificate that is kept renewed: its profile, names, lifetime and key type."""

    profile: str = "agent"
    names: Sequence[str] = ()
    lifetime: int | None = None
    key_type: str = "P-256"

    def fits(self, certificate: AgentCertificate) -> bool:
        """Return whether a certificate has the profile and the key type of this order, and its names if it states
        names.
        """
        if (certificate.profile, certificate.key_type) != (self.profile, self.key_type):
            return False
        return not self.names or set(map(_fold, self.names)) == set(map(_fold, certificate.names))

    def __str__(self) -> str:
        return " ".join((self.profile, self.key_type, *sorted(set(map(_fold, self.names)))))


def _fold(name: str) -> str:
    """Return a name in the spelling in which servers certify it: only URIs keep their case, and an IPv6 address is
    as short as possible.
    """
    kind, _, value = name.partition(":")
    if kind == "ip":
        with suppress(ValueError):
            return f"ip:{ip_address(value)}"
    return name if kind == "uri" else name.lower()


def check_after(random: Callable[[int], bytes]) -> int:
    """Return the microseconds until the next question whether a certificate is revoked: four fifths of CHECK_S, plus a
    random part of at most a fifth.
    """
    return round(CHECK_S * SECOND * (4 + int.from_bytes(random(4), "big") / (1 << 32)) / 5)


def renew_certificate(agent: Agent, folder: Path) -> AgentCertificate:
    """Renew the certificate in a folder once, and return the new certificate. Raises Invalid for a folder without a
    certificate, ServerRefused if the server refuses the renewal, Unavailable if the server does not answer.
    """
    old = load_certificate(folder)
    if old is None:
        raise Invalid(f"{folder} has no certificate", hint=f"issue a certificate: ostiary cert issue --dir {folder}")
    prepare_folder(folder)
    with renewal_lock(folder):
        renewed = agent.certificate(old.profile, old.names, task=old.task, key_type=old.key_type, replaces=old.serial)
        renewed.save(folder)
    return renewed


class CertificateKeeper:
    """The keeper of the certificate in one folder: issues a missing certificate, renews it before it expires, and
    replaces a certificate that is revoked or belongs to another agent. `run` blocks until `stop` is called, or until
    the agent is decommissioned.

    Keepers of one folder have the same order; a keeper with another order waits until they have ended, because each
    would replace the certificate of the other.

    `on_change` is called with the certificate in the folder when `run` begins, and with each certificate that comes
    into the folder later, also if another process wrote it. The call at the beginning is needed because an earlier
    process may have ended after it wrote the files and before it told the service. If `on_change` raises a Refused, it
    is called again later with the newest certificate: a service that was not reloaded would use the old certificate
    until that expires. `on_failure` is called with the message of each failed renewal, of each failed `on_change`, and
    of each failure to read or write the files.
    """

    def __init__(
        self,
        agent: Agent,
        folder: Path,
        order: CertificateOrder,
        *,
        on_change: Callable[[AgentCertificate], None],
        on_failure: Callable[[str], None],
        now: Callable[[], int] = ambient.now,
        tick: Callable[[], int] = ambient.tick,
        random: Callable[[int], bytes] = ambient.random,
    ) -> None:
        self._agent, self._folder, self._wanted = agent, folder, order
        self._on_change, self._on_failure = on_change, on_failure
        self._now, self._tick, self._random = now, tick, random
        self._stopped = threading.Event()
        self._renewal: _Renewal | None = None
        self._unsaved: AgentCertificate | None = None
        self._check_at = self._tick()
        self._told = ""
        self._claim: TextIO | None = None

    def stop(self) -> None:
        """Let `run` return as soon as possible, without another renewal."""
        self._stopped.set()

    def run(self) -> None:
        """Renew the certificate until `stop` is called. Raises Forbidden if the agent is decommissioned."""
        try:
            self._run()
        finally:
            if self._claim is not None:
                self._claim.close()
                self._claim = None

    def _run(self) -> None:
        retry_s = RETRY_S
        while not self._stopped.is_set():
            failed = "the certificate was not renewed"
            try:
                self._claim = self._claim or self._claim_folder()
                certificate = self._current() or self._renew()
                failed = "the new certificate is written, but the service was not reloaded"
                self._tell(certificate)
                retry_s = RETRY_S
                self._stopped.wait(min(max(self._left(), 0) / SECOND, NAP_S))
                continue
            except Refused as refusal:
                self._check_not_decommissioned(refusal)
                hint = f" ({refusal.hint})" if refusal.hint else ""
                self._on_failure(f"{failed}: {refusal.message}{hint}")
            except OSError as error:
                self._on_failure(f"{failed}: {error}")
            self._stopped.wait(retry_s * (1 + self._random(1)[0] / 512))
            retry_s = min(2 * retry_s, MAX_RETRY_S)

    def _claim_folder(self) -> TextIO:
        """Return a locked file that states the order to other keepers of the folder; the lock ends with the file.
        Raises Conflict if another keeper has another order.
        """
        prepare_folder(self._folder)
        with renewal_lock(self._folder):
            file = (self._folder / ".order").open("a+")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.truncate(0)
                file.write(str(self._wanted))
                file.flush()
            except BlockingIOError:  # another keeper has the lock
                file.seek(0)
                if (order := file.read()) != str(self._wanted):
                    file.close()
                    raise Conflict(
                        f"another process keeps the certificate `{order[:200]}` in {self._folder}",
                        hint="name another folder, or end that process",
                    ) from None
            fcntl.flock(file, fcntl.LOCK_SH)
            return file

    def _check_not_decommissioned(self, refusal: Refused) -> None:
        """Raise Forbidden if the server refused the agent because the agent is decommissioned."""
        if refusal.message.startswith(_DECOMMISSIONED):
            raise Forbidden(
                f"the agent is decommissioned: its certificate in {self._folder} is revoked, and not renewed any more",
                hint="get a certificate for another agent",
                code="decommissioned",
            ) from refusal

    def _renew(self) -> AgentCertificate:
        """Issue a certificate, write it into the folder, and return it. If another process has renewed the certificate
        in the meantime, return that certificate. A certificate that could not be written is written at the next call:
        otherwise a full disk would cost a certificate at each attempt.
        """
        prepare_folder(self._folder)
        with renewal_lock(self._folder):
            if (renewed := self._current()) is not None:
                return renewed
            if self._unsaved is None or self._now() >= self._unsaved.renew_at(bytes):
                old = self._read()
                self._unsaved = self._order(replaces=None if old is None else old.serial)
            made = self._unsaved
            made.save(self._folder)
        self._unsaved = None
        self._renewal = self._plan(made, is_new=True)
        self._check_at = self._tick() + check_after(self._random)
        return made

    def _order(self, *, replaces: str | None) -> AgentCertificate:
        """Return a new certificate of the order. A certificate of another agent is not renewed, but replaced."""
        order = self._wanted
        try:
            return self._agent.certificate(
                order.profile, order.names, lifetime=order.lifetime, key_type=order.key_type, replaces=replaces
            )
        except ServerRefused as refusal:
            if replaces is None or refusal.code != "foreign_certificate":
                raise
            return self._order(replaces=None)

    def _tell(self, certificate: AgentCertificate) -> None:
        if certificate.serial != self._told:
            self._on_change(certificate)
            self._told = certificate.serial

    def _current(self) -> AgentCertificate | None:
        """Return the certificate in the folder; None if there is none, it does not fit the order, its renewal is due,
        or the server says that it is not in force.
        """
        certificate = self._read()
        if certificate is None:
            return None
        if self._renewal is None or self._renewal.serial != certificate.serial:
            if not self._wanted.fits(certificate):
                return None
            self._renewal = self._plan(certificate, is_new=False)
            self._check_at = self._tick()
        return certificate if self._left() > 0 and self._is_in_force(certificate) else None

    def _is_in_force(self, certificate: AgentCertificate) -> bool:
        """Return whether a certificate of the folder is live or on hold, and belongs to the agent. The server is asked
        at least once in CHECK_S seconds. A server that cannot be reached, or that refuses the agent, changes nothing;
        the failure is reported.
        """
        if self._tick() < self._check_at:
            return True
        try:
            if self._ask_state(certificate.serial) not in ("live", "on_hold"):
                return False
        except Refused as refusal:
            if refusal.code in ("forbidden", "not_found"):  # another agent's, or not issued by this server
                return False
            self._check_not_decommissioned(refusal)
            self._on_failure(f"whether the certificate is revoked is unknown: {refusal.message}")
        self._check_at = self._tick() + check_after(self._random)
        return True

    def _ask_state(self, serial: str) -> str:
        try:
            return self._agent.certificate_state(serial)
        except ServerRefused as refusal:
            if refusal.code != "invalid_token":
                raise
        return self._agent.certificate_state(serial)  # the refusal of a new token says why the earlier token has ended

    def _plan(self, certificate: AgentCertificate, *, is_new: bool) -> _Renewal:
        """Return the time of a certificate's renewal.

        Two signs mean that the wall clock is wrong, or that the certificate ends soon with its agent or its task: the
        wall clock is before the certificate's start, or says that a new certificate is due at once. A new certificate
        is then renewed after a third of its life, and an older one at once.
        """
        now, tick = self._now(), self._tick()
        at = min(certificate.renew_at(self._random), certificate.not_after)
        is_wrong = now < certificate.not_before or (is_new and now >= at)
        if not is_wrong:
            return _Renewal(certificate.serial, at, tick + at - now)
        pause = max((certificate.not_after - certificate.not_before) // 3, round(RETRY_S * SECOND)) if is_new else 0
        return _Renewal(certificate.serial, None, tick + pause)

    def _left(self) -> int:
        """Return the microseconds until the planned renewal, by the clock that reaches it first. A clock that is set
        back delays no renewal; after a machine was stopped, only the wall clock counts the time.
        """
        assert self._renewal is not None, "a renewal is planned for each certificate that is read or issued"
        left = self._renewal.tick - self._tick()
        return left if self._renewal.at is None else min(left, self._renewal.at - self._now())

    def _read(self) -> AgentCertificate | None:
        try:
            return load_certificate(self._folder)
        except Invalid as damaged:
            self._on_failure(damaged.message)
            return None


class _Renewal(NamedTuple):
    """The time at which a certificate is renewed, in microseconds: on the wall clock (None: that clock is wrong), and
    on the clock that cannot be set.
    """

    serial: str
    at: int | None
    tick: int
