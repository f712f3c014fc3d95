"""Calls that a person must approve: the need for the approval, the outcome, and the numbers of calls without a record.

At the server, one call spends an approval. The guard gives each call a number. A call may have spent an approval
although the guard got no answer from the server, or could not record the call. If an equal call is made later, the
guard therefore asks with the earlier number and gets the earlier answer: no approval is lost, and each approval lets
one call pass.

    SPOOL_DIR/<id>/asked    [["<digest of the call>", "<its number>", "<id of the spent approval, or empty>"], ..]

The guard writes a number to this file before it asks the server, and removes the number once the spool has the record
of the allowed call. If the guard's process ends between these two steps, no approval is lost, because the guard that
takes over the spool asks with this number. If the spool has the record already, the number is removed, so that it lets
no second call pass. After a crash of the machine the file may be outdated, and is not used.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import structs

from ostiary.decision import access, approval
from ostiary.guard.spool import Spool, SpoolFailed
from ostiary.protocol import canonical
from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Refused
from ostiary.provenance.extent import warnings_of
from ostiary.provenance.origins import Memory, list_foreign_links, origins_by_argument

MAX_PENDING = 256
log = logging.getLogger("ostiary.guard")
_encode = msgspec.json.Encoder().encode
_decode = json_decoder(list[tuple[str, str, str]])


@dataclass(frozen=True, slots=True)
class Approval:
    """The need for a person's approval of one call. The generator of a decision yields this need, and is sent an
    `ApprovalOutcome`.
    """

    policies: tuple[str, ...]
    """ids of the policies that require the approval"""
    by: tuple[str, str]
    """(id of the agent that calls, id of its task)"""
    ask: Callable[[str], approval.ApprovalRequest]
    """function that returns the request for the approval of the call with the given number; raises Malformed"""

    @property
    def digest(self) -> str:
        """Return a digest of the call that stays equal if the call is repeated with a newer token. Raises Malformed for
        arguments without a canonical JSON form.
        """
        ask = self.ask("")
        return canonical.digest([*self.by, ask.policies, ask.tool, ask.arguments, ask.secrets], floats=True)


@dataclass(frozen=True, slots=True)
class ApprovalOutcome:
    """The server's answer to a request for an approval, or the refusal if the server could not be asked."""

    policies: tuple[str, ...]
    answer: approval.ApprovalAnswer | None = None
    refusal: Refused | None = None
    number: str = ""
    """the number of the call that spent the approval; empty if no approval was spent"""

    @property
    def approved(self) -> tuple[str, ...]:
        """Return the ids of the policies that required the approval, if this call has spent the approval; otherwise an
        empty tuple.
        """
        return self.policies if self.answer is not None and self.answer.state == "spent" else ()

    def explain(self, decision: access.Decision) -> access.Decision:
        """Return `decision` with the id of the requested or spent approval. If the decision still lacks the approval,
        each reason without a hint gets the hint that a person is asked. If no person could be asked, the reason why not
        replaces the reasons.
        """
        if self.refusal is not None:
            why = self.refusal
            return structs.replace(decision, reasons=(access.Reason(why.code, why.message, why.hint),), asks=None)
        assert self.answer is not None
        id = self.answer.approval
        if not decision.asks:
            return structs.replace(decision, approval=id)
        reasons = tuple(structs.replace(one, hint=one.hint or f"a person is asked: {id}") for one in decision.reasons)
        return structs.replace(decision, reasons=reasons, approval=id)


def approval_of(call: access.ResolvedCall, decision: access.Decision, memory: Memory | None) -> Approval:
    """Return the need for a person's approval of a call that only policies with `@ask` deny."""
    claims, ready = call.principal.claims, call.ready
    assert ready is not None
    origins, warnings = origins_by_argument(decision.call_context), warnings_of(decision.call_context)

    def ask(number: str) -> approval.ApprovalRequest:
        shown, hidden = approval.divide_arguments(call.arguments, ready.secrets, task=claims.task)
        others = {} if memory is None else list_foreign_links(memory, ready.tool, shown)
        return approval.ApprovalRequest(
            call=number,
            token=claims.jti,
            policy=decision.policy_hash,
            policies=list(decision.policies),
            tool=call.tool,
            arguments=shown,
            secrets=hidden,
            origins=origins,
            foreign=others,
            warnings=warnings,
        )

    return Approval(decision.policies, (claims.client_id, claims.task), ask)


class PendingApprovals:
    """The numbers of calls for which this guard requested an approval, and whose record as allowed is not in the spool
    yet. Thread-safe.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._waiting: dict[str, tuple[str, str]] = {}
        """(number of the call, id of the spent approval or empty) by the digest of the call, the oldest first"""
        self._asking: dict[str, tuple[str, str]] = {}
        """(digest of the call, id of the spent approval or empty) by the number, for calls that are being decided"""

    def begin(self, digest: str, number: str) -> str:
        """Return the number with which to request an approval of the call `digest`: the number of an earlier equal call
        without a record, or else `number`. Stores the number before it returns. Raises SpoolFailed if the number cannot
        be stored.
        """
        with self._mutex:
            number, spent = self._waiting.pop(digest, (number, ""))
            self._asking[number] = digest, spent
            try:
                self._write()
            except SpoolFailed:
                del self._asking[number]
                raise
            return number

    def spend(self, number: str, approval: str) -> None:
        """Record in the file that the call with the number `number` has spent the approval with the id `approval`.
        Raises SpoolFailed if the file cannot be written; the caller must then deny the call.
        """
        with self._mutex:
            digest, _ = self._asking[number]
            self._asking[number] = digest, approval
            self._write()

    def release(self, number: str) -> None:
        """Keep the number of a call that ended without a record as allowed, so that a later equal call requests its
        approval with the same number.
        """
        with self._mutex:
            if (asking := self._asking.pop(number, None)) is not None:
                digest, approval = asking
                self._keep({digest: (number, approval)})  # the file already has the number

    def drop(self, number: str) -> None:
        """Delete the number of a call that is recorded in the spool, or that has spent no approval.

        If the file cannot be written, the number stays in it. This is harmless: `inherit` ignores an approval that a
        record in the spool has spent, and a number without a spent approval permits nothing.
        """
        with self._mutex:
            self._asking.pop(number, None)
            try:
                self._write()
            except SpoolFailed as error:
                log.warning("%s", error)

    def inherit(self, spool: Spool) -> None:
        """Take over the numbers of calls in the file `asked` of `spool`, the spool of a guard that has ended. If the
        machine has rebooted since, the file is deleted and the numbers are not used. A failure is logged.
        """
        try:
            left = spool.requested_approvals.read_bytes()
            recorded = spool.approvals()
            spool.requested_approvals.unlink()  # delete first: if two guards had the number, two calls would pass
            if spool.is_whole:
                with self._mutex:
                    triples = _decode(left)
                    self._keep({digest: (number, id) for digest, number, id in triples if id not in recorded})
                    self._write()
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError, SpoolFailed) as error:
            log.warning("cannot take over the approvals that an earlier guard asked for: %s", error)

    def _keep(self, more: dict[str, tuple[str, str]]) -> None:
        self._waiting |= more
        while len(self._waiting) > MAX_PENDING:
            del self._waiting[next(iter(self._waiting))]

    def _write(self) -> None:
        triples = [(digest, number, id) for digest, (number, id) in self._waiting.items()]
        triples += [(digest, number, id) for number, (digest, id) in self._asking.items()]
        fresh = self._path.with_name(".asked")
        try:
            if not triples:
                self._path.unlink(missing_ok=True)
                return
            fresh.write_bytes(_encode(triples))
            fresh.chmod(0o600)
            fresh.replace(self._path)
        except OSError as error:
            raise SpoolFailed(f"{self._path} cannot be written: {error.strerror}") from None
