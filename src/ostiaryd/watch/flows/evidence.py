"""Evidence for a guard's report of a call: the DPoP proof that the agent sent to the guard with the call.

A proof covers the method, the URI, the access token and the time, but not the tool or its arguments. A proof shows that
the agent recently called this guard. Each proof is accepted as evidence for only one entry. See
docs/explanation/threat-model.md.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from ostiary.protocol import dpop
from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Tx
from ostiaryd.ground.world import World
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry

EVIDENCE_US = 600_000_000
"""Time for which the proof of a reported call is stored, in microseconds; detectors examine a call within
milliseconds.
"""
FORGOTTEN_AT_ONCE = 5000
FRESH_US = 300_000_000
"""Maximum difference between the time of the proof and the time of the report, in microseconds."""


class _Reported(msgspec.Struct):
    """The members of a ledger entry that decide whether the entry is proved."""

    at: int
    agent: str | None = None
    token: str | None = None
    reporter: str | None = None


_reported = json_decoder(_Reported)


def is_proved(act: Act, numbers: Collection[int]) -> bool:
    """Return whether all these ledger entries, on which a finding rests, are proved: none of them is only the statement
    of a guard about an agent.

    An entry is proved if the server observed the act itself, if the agent reported its own act, or if the guard also
    sent the agent's DPoP proof of the call. The proof must be made with the key of the token, for that token and the
    guard's resource, within `FRESH_US` of the report, and not be used for another entry.
    """
    return all(_is_proved(act, number) for number in sorted(numbers))


def _is_proved(act: Act, number: int) -> bool:
    body = ledger.get_entry_body(act.tx, number)
    if body is None:
        return False
    entry = _reported(body)
    if entry.reporter is None or entry.reporter == entry.agent:
        return True
    proof, resource = ledger.get_evidence(act.tx, number), registry.get_resource(act.tx, entry.reporter)
    holding = None if entry.token is None else registry.get_holding(act.tx, entry.token)
    if proof is None or resource is None or holding is None or holding.ath is None or holding.jkt is None:
        return False
    try:
        shown = dpop.check_shown(
            proof, resource=resource.uri, ath=holding.ath, jkt=holding.jkt, now=entry.at, window_us=FRESH_US
        )
    except dpop.InvalidProof:
        return False
    return ledger.use_evidence(act.tx, shown.digest, number, until=act.now + 2 * EVIDENCE_US)


async def forget_evidence(world: World) -> None:
    """Delete the proofs of calls that were reported more than `EVIDENCE_US` ago, in small batches."""

    def forget(tx: Tx) -> bool:
        ledger.forget_used_evidence(tx)
        first = ledger.find_first_since(tx, tx.now - EVIDENCE_US)
        before = ledger.get_head(tx)[0].size if first is None else first
        return ledger.forget_evidence(tx, before=before, count=FORGOTTEN_AT_ONCE)

    while await world.writer.submit(forget):
        pass
