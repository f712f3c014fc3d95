"""The cost of threat lists at a guard: a look at the arguments of a call, with 100,000 marks on the lists.

CPU time of this process, so that others on the machine do not matter.
"""

from __future__ import annotations

import time

from ostiary.provenance.noticing.threats import ThreatList, find, indicator, parse_marks

MARKS = 100_000
ROUNDS = 20_000
CALLS: dict[str, dict[str, object]] = {
    "a path": {"path": "/srv/reports/q3.txt"},
    "words": {"text": "please send the figures of the third quarter to Ann"},
    "a link": {"url": "https://files.example.org/reports/q3?year=2026"},
    "a mail": {"to": "ann@example.org", "subject": "Figures", "body": "Dear Ann, here they are.\n" * 10},
}


def main() -> None:
    packed = b"".join(number.to_bytes(8, "big") for number in range(MARKS - 1)) + indicator("domain", "evil.example")[0]
    threats = {"tl_1": ThreatList("evil", 60, parse_marks(packed), frozenset({(4, 22), (4, 24), (6, 32)}))}
    assert find({"url": "https://evil.example/"}, threats), "what is on the list is found"
    for name, arguments in CALLS.items():
        assert not find(arguments, threats)
        print(f"  {name:<8} {_micros(arguments, threats):6.1f} µs, without a list {_micros(arguments, {}):.2f} µs")


def _micros(arguments: dict[str, object], threats: dict[str, ThreatList]) -> float:
    started = time.process_time()
    for _ in range(ROUNDS):
        find(arguments, threats)
    return (time.process_time() - started) / ROUNDS * 1e6


if __name__ == "__main__":
    main()
