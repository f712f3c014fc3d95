"""A certificate that is kept renewed in a folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostiary import ambient
from ostiary.agent.blocking import Agent
from ostiary.agent.certificates import SECOND, AgentCertificate, load_certificate
from ostiary.protocol.errors import Invalid, Refused

RETRY_S, MAX_RETRY_S = 5.0, 300.0
"""Seconds between two renewals if the first one failed, or its certificate is already due for renewal; and their
maximum. The time doubles after each such renewal.
"""
NAP_S = 30.0
"""Maximum seconds of one wait. Then the clock is read again, so that a machine that was suspended renews after it
resumes.
"""


@dataclass(frozen=True, slots=True)
class CertificateOrder:
    """The certificate that is kept renewed: its profile, names, lifetime and key type."""

    profile: str = "agent"
    names: Sequence[str] = ()
    lifetime: int | None = None
    key_type: str = "P-256"

    def fits(self, certificate: AgentCertificate) -> bool:
        """Return whether a certificate has the profile and the names of this order."""
        return certificate.profile == self.profile and (not self.names or set(self.names) == set(certificate.names))


def renew_certificate(agent: Agent, folder: Path) -> AgentCertificate:
    """Renew the certificate in a folder once, and return the new certificate. Raises Invalid for a folder without a
    certificate, ServerRefused, Unavailable.
    """
    old = load_certificate(folder)
    if old is None:
        raise Invalid(f"{folder} has no certificate", hint=f"issue a certificate: ostiary cert issue --dir {folder}")
    renewed = agent.certificate(old.profile, old.names, task=old.task, key_type=old.key_type, replaces=old.serial)
    renewed.save(folder)
    return renewed


class CertificateKeeper:
    """Renews the certificate in a folder before it expires: `run` blocks until `stop` is called.

    `on_change` is called with each new certificate after its files are written. If `on_change` raises a Refused, it is
    called again later with the newest certificate: a service that was not reloaded would use the old certificate until
    that expires. `on_failure` is called with the message of each failed renewal, of each failed `on_change`, and of
    each failure to read or write the files.
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
        random: Callable[[int], bytes] = ambient.random,
    ) -> None:
        self._agent, self._folder, self._wanted = agent, folder, order
        self._on_change, self._on_failure = on_change, on_failure
        self._now, self._random = now, random
        self._stopped = threading.Event()
        self._untold: AgentCertificate | None = None

    def stop(self) -> None:
        """Let `run` return as soon as possible; it renews no further certificate."""
        self._stopped.set()

    def run(self) -> None:
        """Renew the certificate until `stop` is called."""
        retry_s, due = RETRY_S, self._next_renewal()
        while not self._stopped.is_set():
            left = due - self._now()
            if left > 0 and self._untold is None:
                self._stopped.wait(min(left / SECOND, NAP_S))
                continue
            failed = "the certificate was not renewed"
            try:
                if left <= 0:
                    self._issue()
                    due = self._next_renewal()
                failed = "the certificate is in place, but the service was not reloaded"
                self._tell()
                if due > self._now():
                    retry_s = RETRY_S
                    continue
                # the certificate ends soon with its agent or its task, or the clock of this machine is ahead
            except Refused as refusal:
                hint = f" ({refusal.hint})" if refusal.hint else ""
                self._on_failure(f"{failed}: {refusal.message}{hint}")
            except OSError as error:
                self._on_failure(f"{failed}: {error}")
            self._stopped.wait(retry_s * (1 + self._random(1)[0] / 512))
            retry_s = min(2 * retry_s, MAX_RETRY_S)

    def renew(self) -> AgentCertificate:
        """Issue a new certificate, write it into the folder, and return it. Raises ServerRefused, Unavailable, and the
        errors of `on_change`.
        """
        made = self._issue()
        self._tell()
        return made

    def _issue(self) -> AgentCertificate:
        old = self._read()
        order = self._wanted
        made = self._agent.certificate(
            order.profile,
            order.names,
            lifetime=order.lifetime,
            key_type=order.key_type,
            replaces=None if old is None else old.serial,
        )
        made.save(self._folder)
        self._untold = made
        return made

    def _tell(self) -> None:
        if self._untold is not None:
            self._on_change(self._untold)
            self._untold = None

    def _next_renewal(self) -> int:
        """Return the time of the next renewal in microseconds; the present time if the folder has no certificate that
        fits the order.
        """
        certificate = self._read()
        if certificate is None or not self._wanted.fits(certificate):
            return self._now()
        return min(certificate.renew_at(self._random), certificate.not_after)

    def _read(self) -> AgentCertificate | None:
        try:
            return load_certificate(self._folder)
        except Invalid as damaged:
            self._on_failure(damaged.message)
            return None
