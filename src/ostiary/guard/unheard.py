"""Numbers of calls that asked a person and got no answer: the same call, made again, asks with the same number.

    SPOOL_DIR/<id>/asked    [["<digest of the call>", "<its number>"], ..]

A number is in the file before the server is asked, and out of it before what it answered counts. So a guard that dies
in between loses no yes: whichever guard takes over its spool asks with that number, and no number lets two calls pass.
After the death of the machine the file may be an older one, and nobody goes by it.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import msgspec

from ostiary.core.decoding import json_decoder
from ostiary.guard.spool import Spool, SpoolFailed

MAX_UNHEARD = 256
log = logging.getLogger("ostiary.guard")
_encode = msgspec.json.Encoder().encode
_decode = json_decoder(list[tuple[str, str]])


class Unheard:
    """Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._waiting: dict[str, str] = {}
        """by the calls, the oldest first"""
        self._asking: dict[str, str] = {}
        """the calls that are asked about just now, by their numbers"""

    def begin(self, same: str, number: str) -> str:
        """The number with which to ask about that call: one that got no answer, or else this. Raises SpoolFailed."""
        with self._mutex:
            number = self._waiting.pop(same, number)
            self._asking[number] = same
            self._write()
            return number

    def end(self, number: str, *, is_heard: bool) -> None:
        """It has its answer, or has none. Raises SpoolFailed: then its answer must not count."""
        with self._mutex:
            same = self._asking.pop(number)
            if not is_heard:
                self._keep({same: number})
            self._write()

    def inherit(self, spool: Spool) -> None:
        """Take over what a guard has left that is gone; its spool is ours."""
        try:
            said = spool.asked.read_bytes()
            spool.asked.unlink()  # first: two guards with one number would let two calls pass
            if spool.is_whole:
                with self._mutex:
                    self._keep(dict(_decode(said)))
                    self._write()
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError, SpoolFailed) as error:
            log.warning("what a guard before had asked is not known: %s", error)

    def _keep(self, more: dict[str, str]) -> None:
        self._waiting |= more
        while len(self._waiting) > MAX_UNHEARD:
            del self._waiting[next(iter(self._waiting))]

    def _write(self) -> None:
        pairs = [*self._waiting.items(), *((same, number) for number, same in self._asking.items())]
        fresh = self._path.with_name(".asked")
        try:
            if not pairs:
                self._path.unlink(missing_ok=True)
                return
            fresh.write_bytes(_encode(pairs))
            fresh.chmod(0o600)
            fresh.replace(self._path)
        except OSError as error:
            raise SpoolFailed(f"{self._path} cannot be written: {error.strerror}") from None
