"""Calls of functions while requests are served: a count that the load of the machine does not change."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from benchmarks.load.server_under_load import Wrong

VERIFICATION, SIGNATURE, HOP = "ECPublicKey.verify", "ECPrivateKey.sign", "ThreadPoolExecutor.submit"
"""Names of the calls that verify or make an ES256 signature, and that hand work to another thread."""

CALLS_OF_BATCH = 1000
"""Calls of a commit, which all of its requests share, at most."""


class Calls(NamedTuple):
    """The ES256 signatures that each request verifies and makes, and its calls of functions at most, without those of
    the commit.
    """

    verifications: int
    signatures: int
    most: int


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Count the calls of this thread by the qualified name of the function, built-in functions included."""
    calls = Counter[str]()

    def note(frame: FrameType, event: str, function: Any) -> None:
        if event == "call":
            calls[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            calls[function.__qualname__] += 1

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def check_calls(name: str, calls: Counter[str], count: int, expected: Calls, *, batches: int) -> None:
    """Print and check the calls of `count` requests that took `batches` commits. Raises Wrong.

    Only a commit is handed to another thread.
    """
    each, allowed = calls.total() / count, expected.most + CALLS_OF_BATCH * batches // count
    signed = {VERIFICATION: expected.verifications * count, SIGNATURE: expected.signatures * count, HOP: batches}
    found = {function: calls[function] for function in signed}
    if found != signed or each > allowed:
        raise Wrong(f"{count} {name} at once: {found} instead of {signed}, {each:.0f} calls each, at most {allowed}")
    signatures = f"{expected.verifications} verifications, {expected.signatures} signatures"
    print(f"{count} {name} at once: {signatures}, {each:.0f} calls each (at most {allowed}), {batches} hand-overs")
