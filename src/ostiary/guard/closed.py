"""Fail-closed guards: any error while a call is decided denies the call, and any error while a result is
recorded withholds the result.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from ostiary.guard.call import Call, Withheld
from ostiary.protocol.errors import Refused, Unavailable

log = logging.getLogger("ostiary.guard")


@contextmanager
def withholding(call: Call) -> Iterator[None]:
    """Run the block, which adds a result to the memory of the task. If the block fails, log the error in watch mode, or
    else raise Withheld, so that the result is not returned.
    """
    try:
        with fail_closed():
            yield
    except Refused as refusal:
        if call.enforces:
            call.ok = False
            raise Withheld.because_of(refusal) from None
        log.warning("a call is not remembered: %s", refusal.message)


class fail_closed:
    """Run the block. A refusal in the block is raised unchanged; any other exception is logged, and raised as
    Unavailable (code `guard_failed`).
    """

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None or isinstance(error, Refused) or not isinstance(error, Exception):
            return
        log.exception("the guard failed, and refuses a request")
        raise Unavailable(
            "the guard failed because of an internal error, and refuses the request",
            hint="read the error in the log of the guard",
            code="guard_failed",
        ) from error
