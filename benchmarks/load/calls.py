"""The signatures, hand-overs to threads and calls of functions that requests may take."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

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
