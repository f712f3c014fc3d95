"""The detectors at 100,000 agents: entries a second of one processor, and the bytes that are kept of an agent.

`python -m benchmarks.watch [AGENTS [EVENTS]]`. The whole way of an entry: its bytes, the event, every detector, what is
told; all agents are known before it is measured. Bytes are enforced, times are reported.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator
from random import Random

from ostiary.provenance.noticing import Event
from ostiaryd.ledger.model import Entry, Result, encode_entry
from ostiaryd.watch.model import FindingJudgement, Reading, ToolSeen
from ostiaryd.watch.model.batch import MAX_WORDS, Batch, word
from ostiaryd.watch.model.detector import Anomaly, Detector, Kept, Record, detectors
from ostiaryd.watch.model.watcher import Watcher

AGENTS, EVENTS = 100_000, 400_000
ROUND = 2048
START, STEP = 1_800_000_000_000_000, 1000
MOST_BYTES = 1024
TARGET = 50_000
EFFECTS = ("read", "read", "read", "write", "send")


class Timed:
    """A detector, and how long it took."""

    def __init__(self, detector: Detector) -> None:
        self._detector, self.seconds = detector, 0.0
        self.AGENT: Record = detector.AGENT
        self.PEERS: Record = detector.PEERS
        self.ALL: Record = detector.ALL
        self.THRESHOLD = detector.THRESHOLD
        self.CERTAIN = detector.CERTAIN

    def notice(self, batch: Batch, kept: Kept) -> list[Anomaly]:
        started = time.process_time()
        found = self._detector.notice(batch, kept)
        self.seconds += time.process_time() - started
        return found


def bodies(agents: int, count: int, *, first: int, dice: Random) -> list[bytes]:
    """Calls as a fleet makes them: most often the same few tools of an agent, now and then another, some denied."""
    made = []
    for number in range(first, first + count):
        agent = number % agents if first == 0 else dice.randrange(agents)
        tool = agent % 40 if dice.random() < 0.99 else dice.randrange(40)
        at = START + number * STEP
        entry = Entry(
            at=at,
            action="tool.call",
            outcome="deny" if dice.random() < 0.01 else "allow",
            agent=f"ag_{agent:032x}",
            owner=f"pe_{agent % 997:032x}",
            task=f"tk_{number // 20:032x}",
            resource=f"https://r{tool % 8}.example",
            tool=f"r{tool % 8}/tool_{tool}",
            key="k" * 43,
            network=f"10.{agent % 200}.7.0/24",
            reporter="rs_1",
            token=f"tok_{number:032x}",
            digest="d" * 43,
            policy="p" * 43,
            policies=["permitted"],
            result=Result("ok", dice.randrange(20_000), dice.randrange(20)),
            detail={"spool": "0" * 32, "number": number, "at": at},
        )
        made.append(encode_entry(entry))
    return made


def rounds(entries: list[bytes], first: int) -> Iterator[list[tuple[int, bytes]]]:
    for start in range(0, len(entries), ROUND):
        yield list(enumerate(entries[start : start + ROUND], first + start))


def main(agents: int = AGENTS, count: int = EVENTS) -> int:
    timed = {name: Timed(detector) for name, detector in detectors().items()}
    reading = Reading(
        tool_of=lambda uri, tool: ToolSeen(EFFECTS[len(tool) % 5], ("internal",)), model_of=lambda agent: "a-model"
    )
    watcher = Watcher(timed, budget=0.0005, peers_of=lambda agent: str(int(agent[3:], 16) % 40))
    seconds: defaultdict[str, float] = defaultdict(float)
    told = 0

    def run(entries: list[bytes], first: int) -> None:
        nonlocal told
        for part in rounds(entries, first):
            started = time.process_time()
            events: list[Event | FindingJudgement] = []
            for number, body in part:
                if (one := reading.read(number, body)) is not None:
                    events.append(one)
            read = time.process_time()
            told += len(watcher.take(events))
            seconds["reading"] += read - started
            seconds["all"] += time.process_time() - started

    dice = Random("watch")
    known = bodies(agents, agents, first=0, dice=dice)
    tracemalloc.start()
    for number in range(MAX_WORDS):  # what does not grow with the agents: here, and with the first of them
        word(f"of the length of an agent's id {number:5}")
    few = agents // 5
    run(known[:few], 0)
    before = tracemalloc.get_traced_memory()[0]
    run(known[few:], few)
    most = (tracemalloc.get_traced_memory()[0] - before) / (agents - few)
    tracemalloc.stop()
    entries = bodies(agents, count, first=agents, dice=dice)
    seconds.clear()
    told = 0
    for one in timed.values():
        one.seconds = 0.0
    run(entries, agents)
    rate = count / seconds["all"]
    print(f"  agents {len(watcher.memory)}, entries {count}, told {told}, detectors {len(timed)}")
    print(f"  the whole way of an entry        {rate:10.0f} /cpu-s   {seconds['all'] / count * 1e6:6.2f} us")
    print(f"  its event alone                  {count / seconds['reading']:10.0f} /cpu-s")
    work = sum(one.seconds for one in timed.values())
    print(f"  the detectors alone              {count / work:10.0f} /cpu-s   {work / count * 1e6:6.2f} us")
    for name, one in sorted(timed.items(), key=lambda item: -item[1].seconds):
        print(f"    {name:<30} {one.seconds / count * 1e6:17.2f} us")
    print(f"  target: the detectors {TARGET} a second: {'met' if count / work >= TARGET else 'NOT met'}")
    print(f"  kept of an agent, all included   {most:10.0f} bytes, at most {MOST_BYTES}")
    return 0 if most <= MOST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
