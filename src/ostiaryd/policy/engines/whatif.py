"""What-if, in a confined process: one candidate set, then entries of the ledger, then a report.

Candidate        -> {}
Rows             -> {} when all are compared, {"lacks": digest} if a catalogue is needed first
CatalogueText    -> as for Rows, for the remaining rows
Ended            -> {"report": ..}
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ostiary.authorization import cedar
from ostiary.authorization.cedar import ir
from ostiary.decision.access import Policies
from ostiaryd.policy.model import decode_actions
from ostiaryd.policy.model.frames import Answer, Candidate, CatalogueText, Ended, Rows, decode_request, encode_answer
from ostiaryd.policy.model.replay import Lacking, Replay
from ostiaryd.policy.model.whatif import Comparison


class _Run:
    """The comparison of recorded decisions with one candidate set: the set, and the results so far."""

    def __init__(self, candidate: Candidate) -> None:
        rules = ir.parse(candidate.rules.encode())
        stated = cedar.values.parse_entities(msgspec.json.decode(candidate.entities or "[]"))
        policies = Policies(candidate.hash, rules, decode_actions(candidate.actions), stated, candidate.elsewhere)
        self._text = CatalogueText("", None)
        replay = Replay(policies, rules, catalogue=self._catalogue)
        self.comparison = Comparison(replay, policy=candidate.hash, by=candidate.by)
        self._work: Iterator[str] = iter(())

    def begin(self, rows: Rows) -> Answer:
        self._work = self.comparison.compare(rows.rows)
        return self._go_on()

    def add_text(self, text: CatalogueText) -> Answer:
        self._text = text
        return self._go_on()

    def _go_on(self) -> Answer:
        return Answer(lacks=next(self._work, ""))

    def _catalogue(self, digest: str) -> str | None:
        if digest != self._text.digest:
            raise Lacking(digest)
        return self._text.text


_running: list[_Run] = []


def answer(body: bytes) -> bytes:
    """Return the encoded answer to a message of the server (`policy.model.frames`). Runs in the confined process that
    compares recorded verdicts with those of a candidate set.
    """
    match decode_request(body):
        case Candidate() as candidate:
            _running[:] = [_Run(candidate)]
            reply = Answer()
        case Rows() as rows:
            reply = _running[0].begin(rows)
        case CatalogueText() as text:
            reply = _running[0].add_text(text)
        case Ended():
            reply = Answer(report=_running[0].comparison.report())
    return encode_answer(reply)
