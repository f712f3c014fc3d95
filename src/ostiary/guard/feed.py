"""The facts of a guard, and whether they are still reliable. No I/O: the caller passes lines of the feed, and gets the
facts, or the reason why there are no reliable facts.

After an invalid line (a wrong signature, a number out of order, an unknown kind, a policy that does not compile) the
guard deletes all facts, and denies every call until the next snapshot. The guard also denies if the newest message is
older than `max_age`, because it may have missed a revocation.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path

from ostiary.decision import access
from ostiary.decision.feed import KeysFact, Message, ResourceFact, parse_message, unverified_place
from ostiary.guard.clock import FeedClock
from ostiary.guard.knowledge import FeedBroken, FeedStale, Knowledge, Present
from ostiary.guard.stops import KeptStops
from ostiary.protocol.errors import Refused
from ostiary.protocol.jose import JwkSet

GRACE_US = 60_000_000
"""Time in microseconds for which an expired fact is kept, so that a wrong clock does not delete the fact too early."""
PRUNE_EVERY_US = 30_000_000


class _Place(Enum):
    """The position in a stream of the feed, with the kind of message that must come next."""

    OPENING = auto()
    STEP = auto()
    PRIVATE = auto()


class Feed:
    """A guard's side of the feed: checks each line of a stream, and keeps the facts that the lines state, with their
    age. Times in microseconds: `now` is the wall clock, `tick` the boot clock.

    `kept`: the file in which the guard's time is stored; `boot`: the id of the machine's boot; `stops`: the folder of
    kept stops.
    """

    def __init__(
        self,
        *,
        resource_id: str,
        now: Callable[[], int],
        tick: Callable[[], int],
        max_age: int,
        max_skew: int,
        kept: Path | None = None,
        boot: str = "",
        stops: Path | None = None,
    ) -> None:
        self.clock = FeedClock(now=now, tick=tick, file=kept, boot=boot)
        """the clock of the guard, which follows the times of the server's messages; every decision uses it"""
        self._began_at = tick()
        self.is_late = False
        """true if the last message was delayed by more than `max_skew`; the guard then opens a new stream"""
        self.issuer, self._resource_id = "", resource_id
        self._now, self._tick = now, tick
        self.max_age, self._max_skew = max_age, max_skew
        self.kept = KeptStops(stops, now=self.clock)
        """the stops that the guard stores, because they must outlast its restart and a loss of the server's database"""
        self.history = ""
        """id of the history of the server's database to which this stream belongs; a restored database has a new id"""
        self._stream = ""
        self._place = _Place.OPENING
        self.feed_keys = JwkSet(())
        self.seq: int | None = None
        """number of the last message in the server's history; None: the next message must be a snapshot"""
        self._knowledge: Knowledge | None = None
        self._present: Present | None = None
        self._heard_tick = 0  # time of the newest reliable message by the boot clock, minus the delay of the message
        self.heard_at = 0
        """server time of the newest reliable message in microseconds, minus the delay of the message: every earlier
        change is known
        """
        self.mode: str | None = None
        """the mode of the resource, `enforce` or `watch`, in the last message about the resource, even if the facts are
        no longer reliable; None before the first such message
        """
        self._why = "the Ostiary server has not been reached yet; denying to stay safe"
        self._prune_at = 0
        self.listeners: list[Callable[[access.Facts], object]] = []
        """functions that are called with the facts after each change has taken effect; they must raise nothing"""

    def begin(self, stream: str, *, issuer: str, keys: JwkSet) -> None:
        """Prepare for a connection to `issuer` with the random number `stream`; lines of other streams are refused."""
        self._stream, self._place, self.issuer, self.feed_keys = stream, _Place.OPENING, issuer, keys
        self._began_at, self.is_late = self._tick(), False

    def accept(self, unverified_line: bytes) -> Message:
        """Apply the next line of the feed, and return its message. Raises FeedBroken if the line is not valid or does
        not follow the last line; then the guard has no facts.
        """
        try:
            message = parse_message(unverified_line, keys=self.feed_keys)
            self._check(message)
            self._learn(message)
            self.kept.store_message(unverified_line, message)
        except Refused as refusal:
            self.distrust(refusal.message)
            raise FeedBroken(f"the feed is broken: {refusal.message}") from None
        self.seq = message.seq
        answers = self._place is _Place.OPENING and self._tick() - self._began_at <= self._max_skew
        self._place = _Place.PRIVATE if self._resource_id in message.private else _Place.STEP
        self._listen(message, is_proof=answers)
        if message.facts and self._present is not None:
            for listener in self.listeners:
                listener(self._present.facts)
        return message

    def distrust(self, why: str) -> None:
        """Delete all facts. Until the next snapshot, `current` raises FeedStale with `why`."""
        self._knowledge = self._present = self.seq = None
        self._why = f"the feed is broken: {why}"

    def _check(self, message: Message) -> None:
        """Check that `message` may follow the last message of this stream. Raises FeedBroken otherwise."""
        must: dict[str, object] = {"iss": self.issuer, "aud": "", "stream": "", "snapshot": False, "prev": self.seq}
        match self._place:
            case _Place.OPENING:
                must |= {"aud": self._resource_id, "stream": self._stream, "private": []}
                must |= {"snapshot": True, "prev": message.seq} if message.snapshot else {}
            case _Place.PRIVATE:
                must |= {"aud": self._resource_id, "seq": self.seq, "private": []}
        for name, value in must.items():
            if getattr(message, name) != value:
                raise FeedBroken(f"the `{name}` of a message is not the `{name}` that must come next")
        if message.seq < message.prev:
            raise FeedBroken("a message goes back in the history: its `seq` is less than its `prev`")
        self._check_history(message)

    def _check_history(self, message: Message) -> None:
        """Check that the message belongs to the known history of the server, and that the server has lost no part of
        this history. Raises FeedBroken otherwise.
        """
        kept = self.kept
        history, size = unverified_place(message.head)
        if self._place is _Place.OPENING:
            if not message.snapshot and history != kept.history:
                raise FeedBroken("the server resumes in a history of its database that this guard does not know")
        elif history != self.history:
            raise FeedBroken("a message is of another history than its stream")
        if history == kept.history and size < kept.size:
            raise FeedBroken("the server has lost a part of the history that this guard knows")
        self.history = history

    def _learn(self, message: Message) -> None:
        knowledge = Knowledge() if message.snapshot or self._knowledge is None else self._knowledge
        for fact in message.facts:
            if isinstance(fact, ResourceFact) and fact.resource_id != self._resource_id:
                raise FeedBroken("a message is about another resource")
            knowledge.learn(fact)
            if isinstance(fact, ResourceFact):
                self.mode = fact.mode
            if isinstance(fact, KeysFact):
                self.feed_keys = JwkSet.parse({"keys": fact.feed})
        if message.snapshot:
            for fact in self.kept.facts(other_than=self.history):
                knowledge.learn_stop(fact)
        if message.facts or self._present is None:
            self._present = knowledge.present()
        self._knowledge = knowledge

    def _listen(self, message: Message, *, is_proof: bool) -> None:
        """Count the facts as fresh from this message on, if server time, wall clock and boot clock agree. Otherwise
        count the facts as too old.

        `is_proof`: the message contains a random number that the guard sent at most `max_skew` before.
        """
        behind = self._now() - message.at
        late = 0 if is_proof else self.clock.late(message.at)
        if abs(behind) > self._max_skew or late > self._max_skew:
            self._heard_tick = self._tick() - self.max_age - 1
            self.is_late = late > self._max_skew
            off, direction = max(abs(behind), late), "behind" if behind > 0 or self.is_late else "ahead of"
            self._why = (
                f"the server's clock is {off / 1e6:.1f} s {direction} this machine's clock, or its messages are delayed"
            )
            return
        delay = max(behind, late, 0)
        self._heard_tick = self._tick() - delay
        self._why = f"the Ostiary server has been unreachable for {self.max_age / 1e6:g} s; denying to stay safe"
        self.clock.set_from_message(message.at, is_proof=is_proof)
        now = self.clock()
        self.heard_at = min(now - delay, message.at)
        if now >= self._prune_at and self._knowledge is not None:
            self._knowledge.prune(now - GRACE_US)
            self._prune_at = now + PRUNE_EVERY_US

    @property
    def age(self) -> int:
        """Return the age of the facts in microseconds: the time since the newest message was sent.

        If that message was late or the clocks disagree, the age is more than `max_age`.
        """
        return self._tick() - self._heard_tick

    @property
    def last_facts(self) -> access.Facts | None:
        """Return the last facts, even if they are too old to decide by; None if there are none."""
        present = self._present  # the thread of the feed may remove it at any time
        return None if present is None else present.facts

    def current(self) -> Present:
        """Return the facts, if they are reliable. Raises FeedStale otherwise; the guard then denies every call."""
        present, tick = self._present, self._tick()
        if present is None or tick - self._heard_tick > self.max_age:
            raise FeedStale(self._why, hint="check that the server is running, and compare its clock with this guard's")
        if abs(difference := self.clock.difference(tick)) > 2 * self._max_skew:
            raise FeedStale(f"this machine's clock jumped by {difference / 1e6:+.1f} s", hint="set the clock right")
        return present
