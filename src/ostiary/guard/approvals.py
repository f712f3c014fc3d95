"""Calls that a person must approve: the need, its outcome, and the numbers of calls that are not on record yet.

A yes is spent at the server by one call, which a number names. A call that got no answer, or was not recorded after it,
may have spent a yes all the same. So the same call, made again, asks with the same number and gets the same answer: no
yes is lost, and each lets one call pass.

    SPOOL_DIR/<id>/asked    [["<digest of the call>", "<its number>", "<the approval that it has spent, or empty>"], ..]

A number is in the file before the server is asked, and out of it once the allowed call is in the spool. So a guard that
dies anywhere in between loses no yes: whichever guard takes over its spool asks with that number. If the spool has the
record already, the number is dropped, so that it lets no second call pass. After the death of the machine the file may
be an older one, and it is not used.
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
    """The need for a person's approval of one call. The answer is an `ApprovalOutcome`."""

    policies: tuple[str, ...]
    """the policies that ask"""
    by: tuple[str, str]
    """agent and task"""
    ask: Callable[[str], approval.ApprovalRequest]
    """return the question about the call, with that number; raises Malformed"""

    @property
    def digest(self) -> str:
        """Return the digest that names the call, also if it is repeated under a newer token. Raises Malformed."""
        ask = self.ask("")
        return canonical.digest([*self.by, ask.policies, ask.tool, ask.arguments, ask.secrets], floats=True)


@dataclass(frozen=True, slots=True)
class ApprovalOutcome:
    """The server's answer about an approval, or the reason why there is none."""

    policies: tuple[str, ...]
    answer: approval.ApprovalAnswer | None = None
    refusal: Refused | None = None
    number: str = ""
    """the number of the call that spent the approval; empty if none was spent"""

    @property
    def approved(self) -> tuple[str, ...]:
        """Return the asking policies whose approval this call has spent."""
        return self.policies if self.answer is not None and self.answer.state == "spent" else ()

    def explain(self, decision: access.Decision) -> access.Decision:
        """Return the decision with the id of the approval, or with the reason why no person was asked."""
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
    """Return the need for a person's approval, for a call that nothing else denies."""
    claims, ready = call.principal.claims, call.ready
    assert ready is not None
    origins, warnings = origins_by_argument(decision.call_context), warnings_of(decision.call_context)

    def ask(number: str) -> approval.ApprovalRequest:
        shown, hidden = approval.part(call.arguments, ready.secrets, task=claims.task)
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
    """Numbers of calls that requested an approval and are not recorded as allowed. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._waiting: dict[str, tuple[str, str]] = {}
        """number and approval by the digest of the call, the oldest first"""
        self._asking: dict[str, tuple[str, str]] = {}
        """digest and approval by the number of the call, for calls that are being decided"""

    def begin(self, digest: str, number: str) -> str:
        """Return the number for a request about the call with that digest: of an earlier unrecorded call, or a
        new one. Raises SpoolFailed.
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
        """Record that the call with that number has spent the approval. Raises SpoolFailed: then the call must
        not pass.
        """
        with self._mutex:
            digest, _ = self._asking[number]
            self._asking[number] = digest, approval
            self._write()

    def release(self, number: str) -> None:
        """Keep the number of a call that is not recorded as allowed, so that the repeated call uses the same number."""
        with self._mutex:
            if (asking := self._asking.pop(number, None)) is not None:
                digest, approval = asking
                self._keep({digest: (number, approval)})  # the file has it already

    def drop(self, number: str) -> None:
        """Delete a number whose call is recorded, or whose approval is not spent.

        If the file cannot be written, it keeps a number too many, which the record in the spool makes harmless.
        """
        with self._mutex:
            self._asking.pop(number, None)
            try:
                self._write()
            except SpoolFailed as error:
                log.warning("%s", error)

    def inherit(self, spool: Spool) -> None:
        """Take over the numbers of a guard that has ended, with its spool."""
        try:
            left = spool.requested_approvals.read_bytes()
            recorded = spool.approvals()
            spool.requested_approvals.unlink()  # first: two guards with one number would let two calls pass
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
