"""The two connections of the guard to the server, each in a thread of its own, so that they work in any kind of
program.

listen   GET /feed/v1/stream, which has no end. After an interruption it reconnects, and continues after the last
         message unless the feed was broken
tell     POST /feed/v1/applied as soon as a change of the facts is in force, POST /feed/v1/report soon after a decision,
         and requests about slices: /feed/v1/give-back for idle slices, /feed/v1/settle for a completely reported spool
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import msgspec

from ostiary import ambient, client
from ostiary.decision.feed import HEARTBEAT_HEADER, SCOPE, Message
from ostiary.decision.report import MAX_RECORDS
from ostiary.guard.approvals import PendingApprovals
from ostiary.guard.budgets import DRAW_S, IDLE_US, BudgetCache, BudgetClient
from ostiary.guard.feed import Feed
from ostiary.guard.feed_stream import hang_up, is_recovering, read_lines
from ostiary.guard.memories import TaskMemories
from ostiary.guard.rate import RateLimiter
from ostiary.guard.server_rpc import ASK_S, ServerRpc
from ostiary.guard.spool import Spool, take_over_spools
from ostiary.keys import Credential
from ostiary.protocol import canonical
from ostiary.protocol.errors import Invalid, Refused, Unavailable
from ostiary.protocol.jose import JwkSet, b64u

log = logging.getLogger("ostiary.guard")

CONNECT_S = 5.0
FIRST_RETRY_S, LAST_RETRY_S = 0.05, 2.0
LINGER_S = 0.05
"""Seconds for which a report or an acknowledgement is delayed, so that one request contains several records, and the
outcome of a call with its record.
"""
REPORT_BYTES = 512 << 10
FAREWELL_S = 2.0

Expected = (Refused, httpx2.HTTPError, OSError)
"""Exceptions that are expected while the server is not reachable; they are logged without a traceback."""


class Link:
    """The connections of one guard to its server: the feed, reports, budgets and requests."""

    def __init__(
        self,
        credential: Credential,
        *,
        url: str | None,
        feed: Feed,
        spool: Spool,
        spool_dir: Path,
        budgets: BudgetCache,
        now: Callable[[], int],
        tick: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._credential, self._url = credential, (url or credential.issuer).rstrip("/")
        self._feed, self._spools, self._spool_dir = feed, [spool], spool_dir
        self._now, self._tick, self._random = now, tick, random
        self.budget_client = BudgetClient(
            budgets, spool=spool.id, url=self._url, connect=lambda: self._connected(DRAW_S)
        )
        self.rpc = ServerRpc(
            url=self._url,
            resource_id=credential.client_id,
            feed=feed,
            connect=lambda: self._connected(ASK_S),
            tick=tick,
            random=random,
            pending=PendingApprovals(spool.requested_approvals),
        )
        self.memories = TaskMemories(self.rpc, random=random)
        self.rate = RateLimiter(self.rpc, now=feed.clock)
        self._budgets = budgets
        self._closing, self._wake = threading.Event(), threading.Event()
        self.is_current = threading.Event()
        """event that is set once the first message was applied"""
        self.trouble = "not connected yet"
        """text of the last error of the connection to the server; empty while messages arrive"""
        self._applied: tuple[str, int, int] | None = None
        """(stream, number, time) of the newest applied message with facts, if it is not yet acknowledged"""
        self._is_reporting = self._has_to_deliver = False
        self._told_at = tick()
        """time at which the server had all records (`tick`, in microseconds)"""
        self._response: httpx2.Response | None = None
        self._threads = [
            threading.Thread(target=target, name=f"ostiary-{target.__name__.strip('_')}", daemon=True)
            for target in (self._listen, self._tell)
        ]

    def start(self) -> None:
        """Start the threads that receive the feed and deliver the records."""
        with suppress(OSError):  # `_converse` takes over spools again
            self._sweep()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Report the remaining records, for at most FAREWELL_S seconds, then end both connections to the server."""
        self._closing.set()
        self._wake.set()
        listen, tell = self._threads
        if tell.is_alive():
            tell.join(FAREWELL_S)  # end this thread first: its last acknowledgement needs the open stream
        if (response := self._response) is not None:
            hang_up(response)
        if listen.is_alive():
            listen.join(FAREWELL_S)
        self.budget_client.close()
        self.rpc.close()
        self._feed.kept.close()

    def wake_reporter(self) -> None:
        """Wake the thread that reports, because the spool has a new record."""
        if not self._is_reporting:
            self._is_reporting = True
            self._wake.set()

    @contextmanager
    def _connected(self, timeout_s: float | None = None) -> Iterator[tuple[httpx2.Client, client.Auth, str]]:
        """Yield the HTTP client of one connection, its authentication, and the issuer. Raises the errors of the
        connection.
        """
        timeout = httpx2.Timeout(timeout_s or CONNECT_S, read=timeout_s or self._feed.max_age / 1e6)
        with httpx2.Client(timeout=timeout) as http:
            issuer_client = client.Client(self._credential, url=self._url, now=self._now, random=self._random)
            issuer = client.run(http, issuer_client.discover()).issuer
            yield http, client.Auth(issuer_client, client.Target(f"{issuer}/api/v1", SCOPE)), issuer

    def _listen(self) -> None:
        pause = FIRST_RETRY_S
        while not self._closing.is_set():
            try:
                with self._connected() as (http, auth, issuer):
                    for _ in self._follow(http, auth, issuer):
                        pause = FIRST_RETRY_S
            except Exception as error:  # noqa: BLE001 because the feed must come back whatever it was
                self.trouble = str(error) or type(error).__name__
                self._complain("the feed is interrupted", error)
            self._closing.wait(self._jitter(pause))
            pause = min(2 * pause, LAST_RETRY_S)

    def _follow(self, http: httpx2.Client, auth: client.Auth, issuer: str) -> Iterator[Message]:
        """Follow a stream from beginning to end: yield each message once it is in force. Raises any error."""
        stream = b64u(self._random(16))
        self._feed.begin(stream, issuer=issuer, keys=self._feed_keys(http))
        query = {"stream": stream} | ({} if self._feed.seq is None else {"after": str(self._feed.seq)})
        query |= {"head": b64u(self._feed.kept.head.encode())} if self._feed.kept.head else {}
        with http.stream("GET", f"{self._url}/feed/v1/stream", params=query, auth=auth) as response:
            if response.status_code != 200:
                response.read()
                if is_recovering(response):
                    self._feed.distrust("the server has lost a part of its history and is in recovery")
                    self._deliver()
                raise Unavailable(f"the feed answers {response.status_code}: {response.text[:200]}")
            self._check_heartbeat(response.headers.get(HEARTBEAT_HEADER, "0"))
            self._response = response
            for line in read_lines(response.iter_bytes()):
                if self._closing.is_set():
                    continue  # ignore the line; the stream stays open until earlier messages are acknowledged
                message = self._feed.accept(line)
                if message.snapshot and self._feed.kept.has_others(self._feed.history):
                    self._deliver()
                if message.facts:
                    self._applied = (stream, message.seq, self._tick())
                    self._wake.set()
                self.trouble = ""
                self.is_current.set()
                yield message
                if self._feed.is_late:
                    raise Unavailable(
                        "a message of the feed came too late to be trusted",
                        hint="check the network to the server, and both clocks",
                    )
        raise Unavailable("the server ended the stream")

    def _check_heartbeat(self, interval_ms: str) -> None:
        """Check that the heartbeats of the server come more often than `max_age`. Raises Invalid: the guard would deny
        between them.
        """
        if interval_ms.isdecimal() and int(interval_ms) * 1000 >= self._feed.max_age:
            why = f"`max_age` of this guard is {self._feed.max_age / 1e6:g} s, the server sends a heartbeat each "
            wrong = Invalid(why + f"{int(interval_ms) / 1e3:g} s", hint="raise `max_age`, or lower `feed_heartbeat_ms`")
            self._feed.distrust(wrong.message)
            raise wrong

    def _feed_keys(self, http: httpx2.Client) -> JwkSet:
        """Return the public keys that verify the feed. The guard fetches the keys once; the feed announces later
        changes.
        """
        if self._feed.feed_keys.keys and self._feed.seq is not None:
            return self._feed.feed_keys
        response = http.get(f"{self._url}/feed/v1/jwks")
        if response.status_code != 200:
            raise Unavailable(f"/feed/v1/jwks answers {response.status_code}, instead of the keys of the feed")
        return JwkSet.parse(canonical.parse(response.content))

    def _deliver(self) -> None:
        """Request that the other thread deliver the kept stops, because the server may have lost them."""
        self._has_to_deliver = True
        self._wake.set()

    def _deliver_stops(self, http: httpx2.Client, auth: client.Auth) -> None:
        """Deliver the kept stops to the server. If the server has another history and has accepted all of them, delete
        the stops of other histories, and reconnect to get a new snapshot.
        """
        kept, history, is_connected = self._feed.kept, self._feed.history, self._feed.seq is not None
        unverified = 0
        self._has_to_deliver = False
        try:
            for batch in kept.batches():
                answer = self._post(http, auth, "stops", {"messages": batch}).json()
                unverified += int(answer.get("unverified", 0))
        except BaseException:
            self._has_to_deliver = True
            raise
        if unverified:
            log.warning("the server has lost the key that signed %d kept stops: this guard keeps them", unverified)
        elif is_connected and self._feed.history == history and kept.settle(history):
            self._feed.distrust("the kept stops were delivered to the server's new history")
            if (response := self._response) is not None:
                hang_up(response)

    def _tell(self) -> None:
        pause = FIRST_RETRY_S
        while True:
            # An attempt that began before the guard closed may have failed because of the closing; try again.
            is_last = self._closing.is_set()
            try:
                with self._connected() as (http, auth, _):
                    for _ in self._converse(http, auth):
                        pause = FIRST_RETRY_S
                    return
            except Exception as error:  # noqa: BLE001 because no error may end the reports of this spool
                self._complain("cannot report", error)
            if is_last:
                return
            self._closing.wait(self._jitter(pause))
            pause = min(2 * pause, LAST_RETRY_S)

    def _complain(self, problem: str, error: Exception) -> None:
        """Log the failure of a connection, which is then opened again. `problem`: the beginning of the log message."""
        if not self._closing.is_set():
            log.warning("%s: %s", problem, error, exc_info=not isinstance(error, Expected))

    def _jitter(self, pause: float) -> float:
        """Return 0.5 to 1.5 times `pause`, so that guards do not reconnect at the same time."""
        return pause * (0.5 + self._random(1)[0] / 255)

    def _converse(self, http: httpx2.Client, auth: client.Auth) -> Iterator[None]:
        """Send due reports until the guard closes; yield after each success. Raises any error of the connection."""
        self._sweep()
        while True:
            self._is_reporting = False
            if self._has_to_deliver:
                self._deliver_stops(http, auth)
            self._report(http, auth)
            self._told_at = self._tick()
            yield
            if self._closing.is_set():
                if self.budget_client.has_drawn:
                    self.budget_client.settle()
                return
            if not self._wake.wait(IDLE_US / 1e6):
                self._sweep()
            self._wake.clear()
            self._closing.wait(LINGER_S)
            self._acknowledge(http, auth)
            if not self._budgets.is_empty:
                self.budget_client.give_back()

    def _acknowledge(self, http: httpx2.Client, auth: client.Auth) -> None:
        applied, self._applied = self._applied, None
        if applied is not None:
            stream, seq, at = applied
            now = self._tick()
            late = now - self._told_at if any(spool.waiting for spool in self._spools) else 0
            acknowledgement = {
                "stream": stream,
                "seq": seq,
                "ago": now - at,
                "late": late,
                "filled": self._spools[0].filled,
            }
            self._post(http, auth, "applied", acknowledgement)

    def _report(self, http: httpx2.Client, auth: client.Auth) -> None:
        for spool in list(self._spools):
            last_record = 0
            while (batch := spool.batch(count=MAX_RECORDS, size=REPORT_BYTES)) is not None:
                body = {"spool": spool.id, "first": batch.first, "records": batch.records}
                if batch.records:
                    # Acknowledge before the report: acknowledgements must not wait for records.
                    self._acknowledge(http, auth)
                    self._post(http, auth, "report", body)
                    last_record = batch.first + len(batch.records) - 1
                spool.confirm(batch.mark)
            if spool is not self._spools[0]:
                if spool.is_whole:  # otherwise the last records may be lost, and all drawn units count as spent
                    self._post(http, auth, "settle", {"spool": spool.id, "told": last_record})
                spool.close()
                self._spools.remove(spool)

    def _sweep(self) -> None:
        spools = take_over_spools(self._spool_dir, boot=ambient.boot())
        self._spools += spools
        for spool in spools:
            self.rpc.pending.inherit(spool)

    def _post(self, http: httpx2.Client, auth: client.Auth, path: str, body: object) -> httpx2.Response:
        headers = {"content-type": "application/json"}
        content = msgspec.json.encode(body)
        response = http.post(f"{self._url}/feed/v1/{path}", content=content, headers=headers, auth=auth)
        if response.status_code != 200:
            raise Unavailable(f"/feed/v1/{path} answers {response.status_code}: {response.text[:200]}")
        return response
