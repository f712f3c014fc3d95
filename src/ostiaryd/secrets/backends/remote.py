"""Requests to the server of a back end by the SSRF-safe fetcher. Time and size are bounded, and redirects are
not followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from ostiary.protocol.errors import Unavailable
from ostiaryd.ground.outbound.fetch import REDIRECTS, Answer, request
from ostiaryd.secrets.model.backend import MAX_ANSWER, BackendFailed

WITHIN_S = 5.0


class Remote(NamedTuple):
    """A server whose address the configuration names; therefore its address may be private."""

    address: str
    ca_file: str = ""

    async def send(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """Return the answer to a request. Raises BackendFailed, Invalid for a path that is too long."""
        try:
            answer = await request(
                method,
                self.address + path,
                body=body,
                headers=headers,
                within_s=WITHIN_S,
                max_bytes=MAX_ANSWER,
                private=[urlsplit(self.address).hostname or ""],
                ca_file=self.ca_file,
            )
        except Unavailable as refusal:
            raise BackendFailed(f"the back end failed: {refusal.message}", hint=refusal.hint) from None
        if answer.status in REDIRECTS:
            raise BackendFailed("the back end redirects, which is not followed")
        return answer
