"""Numbers of calls that asked for a person's yes and are not on record as allowed: the same call, made again, asks with
the same number.

    SPOOL_DIR/<id>/asked    [["<digest of the call>", "<its number>", "<the approval that it has spent, or empty>"], ..]

A number is in the file before the server is asked, and out of it once the allowed call is in the spool. So a guard that
dies anywhere in between loses no yes: whichever guard takes over its spool asks with that number. If the spool has the
record already, the number is dropped, so that it lets no second call pass. After the death of the machine the file may
be an older one, and it is not used.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import msgspec

from ostiary.guard.spool import Spool, SpoolFailed
from ostiary.protocol.decoding import json_decoder

MAX_UNHEARD = 256
log = logging.getLogger("ostiary.guard")
_encode = msgspec.json.Encoder().encode
_decode = json_decoder(list[tuple[str, str, str]])


class Unheard:
    """Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._waiting: dict[str, tuple[str, str]] = {}
        """number and approval by the digests of calls, the oldest first"""
        self._asking: dict[str, tuple[str, str]] = {}
        """digest and approval by the numbers of calls that are being decided"""

    def begin(self, same: str, number: str) -> str:
        """Return the number with which to ask about that call: one that is not on record yet, or else this.

        Raises SpoolFailed.
        """
        with self._mutex:
            number, spent = self._waiting.pop(same, (number, ""))
            self._asking[number] = same, spent
            try:
                self._write()
            except SpoolFailed:
                del self._asking[number]
                raise
            return number

    def spend(self, number: str, approval: str) -> None:
        """Note that the yes is spent on that number. Raises SpoolFailed: then the call must not pass."""
        with self._mutex:
            same, _ = self._asking[number]
            self._asking[number] = same, approval
            self._write()

    def release(self, number: str) -> None:
        """The call is not on record as allowed: the same call, made again, asks with this number."""
        with self._mutex:
            if (found := self._asking.pop(number, None)) is not None:
                same, approval = found
                self._keep({same: (number, approval)})  # the file has it already

    def drop(self, number: str) -> None:
        """The number is of no use any more: its call is on record, or nothing is spent on it.

        If the file cannot be written, it names a number too many, which the record in the spool makes harmless.
        """
        with self._mutex:
            self._asking.pop(number, None)
            try:
                self._write()
            except SpoolFailed as error:
                log.warning("%s", error)

    def inherit(self, spool: Spool) -> None:
        """Take over what a guard has left that is gone; its spool is ours."""
        try:
            left = spool.asked.read_bytes()
            recorded = spool.approvals()
            spool.asked.unlink()  # first: two guards with one number would let two calls pass
            if spool.is_whole:
                with self._mutex:
                    triples = _decode(left)
                    self._keep({same: (number, id) for same, number, id in triples if id not in recorded})
                    self._write()
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError, SpoolFailed) as error:
            log.warning("cannot take over the approvals that a guard before had asked for: %s", error)

    def _keep(self, more: dict[str, tuple[str, str]]) -> None:
        self._waiting |= more
        while len(self._waiting) > MAX_UNHEARD:
            del self._waiting[next(iter(self._waiting))]

    def _write(self) -> None:
        triples = [(same, number, id) for same, (number, id) in self._waiting.items()]
        triples += [(same, number, id) for number, (same, id) in self._asking.items()]
        fresh = self._path.with_name(".asked")
        try:
            if not triples:
                self._path.unlink(missing_ok=True)
                return
            fresh.write_bytes(_encode(triples))
            fresh.chmod(0o600)
            fresh.replace(self._path)
        except OSError as error:
            raise SpoolFailed(f"{self._path} cannot be written: {error.strerror}") from None
