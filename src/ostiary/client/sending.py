"""Sending of requests: each with the DPoP nonce that its server requires, and again after a delay that the server
demands.

If a request is refused because of its nonce, the new nonce is compared with the nonce of this request, because parallel
requests may have changed the stored nonce.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime

import httpx2

from ostiary.client.refusals import read_object
from ostiary.client.steps import Flow, Pause, Turns
from ostiary.protocol import dpop

MAX_CACHED = 1000
MAX_NONCES = 6
"""Maximum number of attempts of one request, each with another nonce. From the third attempt on, the requests of this
client to this server are sent one at a time.
"""
MAX_PAUSES = 3
MAX_PAUSE_S = 10.0
"""Longest `Retry-After` in seconds for which a request waits; for a longer one, the caller gets the response."""
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that a client may repeat without a further effect (RFC 9110 section 9.2.2)."""
SECOND = 1_000_000


class Sender:
    """The requests of one client to all its servers. Threads and tasks may share it."""

    def __init__(self, now: Callable[[], int]) -> None:
        """Create a sender without stored nonces. `now`: a function that returns the wall clock, in microseconds."""
        self._now = now
        self._nonces: dict[str, str] = {}
        """the newest nonce of each server; the token endpoint of the issuer has a separate nonce"""
        self._turns = dict[str, Turns]()

    def share_anew(self) -> None:
        """Replace all queues of waiting requests by new ones. Call this in a forked process, in which the waiting
        threads of the parent process do not exist.
        """
        self._turns = {}

    def send(
        self, method: str, make: Callable[[str | None], httpx2.Request], *, server: str | None = None
    ) -> Flow[httpx2.Response]:
        """Send the request that `make` returns for a nonce, and return the response. If the response has
        `Retry-After`, wait for that time, and send another request of `make` (RFC 9110 section 10.2.3). `method`: the
        method of the request, or `token` for a token request. `server`: the name under which the server's nonces are
        stored; None for a request without a nonce.

        After 503, only idempotent methods and token requests are repeated, because a second request does no harm if the
        server has processed the first. After 429 (RFC 6585 section 4), and after 503 with the challenge of a guard that
        could not judge the token, every method is repeated, because the server has not processed the request.
        """
        for left in reversed(range(MAX_PAUSES + 1)):
            response = yield from self._send_with_nonce(make, server)
            may_repeat = response.status_code == 429 or (
                response.status_code == 503 and (method in IDEMPOTENT or method == "token" or _was_not_judged(response))
            )
            pause_s = self._retry_after_s(response) if may_repeat else None
            if pause_s is None or pause_s > MAX_PAUSE_S or not left:
                break
            yield Pause(pause_s)
        return response

    def _send_with_nonce(
        self, make: Callable[[str | None], httpx2.Request], server: str | None
    ) -> Flow[httpx2.Response]:
        """Send the request that `make` returns for the stored nonce of `server`, and send it again while the server
        demands another nonce. Return the response.

        A server may issue a new nonce with each response and accept only the newest. Parallel requests would then
        invalidate each other's nonces forever. Therefore, after two refusals, requests to this server wait in a queue
        (RFC 9449 sections 8.2 and 9).
        """
        if server is None:
            response: httpx2.Response = yield make(None)
            return response
        turns, nonce = self._turns.setdefault(server, Turns()), self._nonces.get(server)
        ticket = None
        try:
            for number in range(1, MAX_NONCES + 1):
                if ticket is None and (number > 2 or turns.is_contended):
                    ticket = yield from turns.take()
                    nonce = self._nonces.get(server)
                response = yield make(nonce)
                fresh_nonce = self._learn_nonce(server, response)
                if fresh_nonce is None or fresh_nonce == nonce or not _wants_nonce(response):
                    break
                nonce = fresh_nonce
        finally:
            if ticket is not None:
                turns.leave(ticket)
        return response

    def _retry_after_s(self, response: httpx2.Response) -> float | None:
        """Return the seconds that `Retry-After` states; None if the header is absent or malformed."""
        text = response.headers.get("retry-after", "")
        if re.fullmatch("[0-9]{1,9}", text):
            return float(text)
        try:
            return max(parsedate_to_datetime(text).timestamp() - self._now() / SECOND, 0.0)
        except ValueError:
            return None

    def _learn_nonce(self, server: str, response: httpx2.Response) -> str | None:
        """Store the nonce that a server gives, and return it."""
        nonce: str | None = response.headers.get("dpop-nonce")
        if nonce is None or len(nonce) > dpop.MAX_NONCE:
            return None
        if len(self._nonces) >= MAX_CACHED and server not in self._nonces:
            self._nonces.clear()
            self._turns = {name: turns for name, turns in self._turns.copy().items() if turns.is_contended}
        self._nonces[server] = nonce
        return nonce


def error_of(response: httpx2.Response) -> str | None:
    """Return the error code of a token response (RFC 6749 section 5.2), an empty text for a refusal without a code, and
    None for a response that is no refusal.
    """
    return str(read_object(response.content).get("error", "")) if response.status_code in (400, 401) else None


def _was_not_judged(response: httpx2.Response) -> bool:
    """Return whether a guard could not judge the token of the request yet (`ostiary.asgi`). A challenge alone does not
    say that the server has not processed the request (RFC 9110 section 11.6.1).
    """
    return 'error="temporarily_unavailable"' in response.headers.get("www-authenticate", "")


def _wants_nonce(response: httpx2.Response) -> bool:
    """Return whether a response refuses a request because of its nonce: in the body (RFC 9449 section 8), or in the
    challenge (section 9).
    """
    if response.status_code not in (400, 401):
        return False
    challenge = response.headers.get("www-authenticate", "")
    return "use_dpop_nonce" in challenge or (response.is_stream_consumed and error_of(response) == "use_dpop_nonce")
