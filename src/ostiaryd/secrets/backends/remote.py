"""Requests to the server of a back end through the SSRF-safe fetcher. Time and size are limited; redirects are not
followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from ostiary.protocol.errors import Unavailable
from ostiaryd.ground.outbound.fetch import REDIRECTS, Answer, send_request
from ostiaryd.secrets.model.backend import MAX_ANSWER, BackendFailed

WITHIN_S = 5.0


class Remote(NamedTuple):
    """The server of a back end. The operator's configuration names its address, so the address may be private."""

    address: str
    ca_file: str = ""

    async def send(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """Send a request and return the response. Raises BackendFailed if the back end does not answer or redirects;
        Invalid if the path is too long.
        """
        try:
            answer = await send_request(
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
            raise BackendFailed(
                "the back end answers with a redirect, which is not followed",
                hint="configure the address to which the back end redirects",
            )
        return answer
